"""Texts of what `skylb serve` prints when it is ready."""

from skylb.addresses import ListenAddress
from skylb.config import Settings


def url_of(scheme: str, address: ListenAddress) -> str:
    """An address as clients write it."""
    return str(address) if address.unix else f"{scheme}://{address}"


def open_warning(settings: Settings) -> str | None:
    """What to say of a fleet with a key that nobody has to show here; ``None``: there is no such thing."""
    checked = settings.keys_file is not None or settings.tls_client_ca is not None
    if settings.replica_key_file is None or checked:
        return None
    near = all(address.is_loopback for address in settings.listen)
    addresses = ", ".join(map(str, settings.listen))
    who = "everybody on this machine" if near else f"EVERYBODY WHO REACHES {addresses}"
    return (
        f"replica_key_file: {who} can use the replicas with this key, because SkyLB does not check clients. "
        "To check them, give --keys-file (skylb keys new --file FILE --tenant NAME makes a key) or "
        "--tls-client-ca. Or let only a gateway that checks them reach SkyLB. If the key is meant for probes "
        "only, give it with --probe-key-file."
    )


def curl_line(scheme: str, address: ListenAddress, model: str, *, keyed: bool = False) -> str:
    """A line to try what listens there; ``keyed``: a client needs a key."""
    loopback = "::1" if ":" in address.host else "127.0.0.1"
    here = ListenAddress(loopback, address.port) if address.is_wildcard else address
    url = f"{scheme}://{here}"
    where = f"--unix-socket {address.host} {scheme}://localhost" if address.unix else url
    body = f'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'
    flags = "-Nk" if scheme == "https" else "-N"
    key = " -H 'Authorization: Bearer KEY'" if keyed else ""
    return f"curl {flags} {where}/v1/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'"
