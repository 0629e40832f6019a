"""Texts of what `skylb serve` prints when it is ready."""

from skylb.addresses import ListenAddress


def url_of(scheme: str, address: ListenAddress) -> str:
    """An address as clients write it."""
    return str(address) if address.unix else f"{scheme}://{address}"


def curl_line(scheme: str, address: ListenAddress, model: str) -> str:
    """A line to try what listens there."""
    loopback = "::1" if ":" in address.host else "127.0.0.1"
    here = ListenAddress(loopback, address.port) if address.is_wildcard else address
    url = f"{scheme}://{here}"
    where = f"--unix-socket {address.host} {scheme}://localhost" if address.unix else url
    body = f'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'
    flags = "-Nk" if scheme == "https" else "-N"
    return f"curl {flags} {where}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"
