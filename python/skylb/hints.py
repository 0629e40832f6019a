"""What was meant by a name that is unknown."""

import difflib
from collections.abc import Collection

MEANT = {
    "--port": "--listen HOST:PORT",
    "--host": "--listen HOST:PORT",
    "--bind": "--listen HOST:PORT",
    "--worker": "--replica URL",
    "--workers": "--replica URL, once for each",
    "--worker-url": "--replica URL",
    "--backends": "--replica URL, once for each",
    "--endpoint": "--replica URL",
    "--endpoints": "--replica URL, once for each",
    "--replicas": "--replica URL, once for each",
    "--upstream": "--replica URL",
    "--upstreams": "--replica URL, once for each",
    "--url": "--replica URL",
    "--urls": "--replica URL, once for each",
    "--strategy": "--policy NAME",
    "--algorithm": "--policy NAME",
    "--routing-policy": "--policy NAME",
    "--tls": "--tls-cert FILE and --tls-key FILE",
    "--cert": "--tls-cert FILE and --tls-key FILE",
    "--ssl-certfile": "--tls-cert FILE",
    "--ssl-keyfile": "--tls-key FILE",
    "--timeout": "--timeout-first-byte-s SECONDS, or another time-out of --help-all",
    "--metrics": "--admin HOST:PORT, which serves /metrics",
    "--quiet": "--log-level error, and --no-access-log",
    "--log": "--access-log FILE, or --log-level LEVEL",
    "--json-logs": "--log-format json",
    "--metrics-port": "--admin HOST:PORT, which serves /metrics",
    "--verbose": "--log-level debug",
    "--debug": "--log-level debug",
}
"""Flags that other programs have, and what they are called here. `skylb.dropin` knows more of them."""

CLOSE = 0.75
"""How alike two names must be for one to be suggested: below it, `--port` would suggest `--peer`."""


def suggestion(name: str, known: Collection[str]) -> str:
    """``; did you mean NAME?`` where a known name is close, else nothing."""
    tail = name.rpartition(".")[2]
    meant = MEANT.get(name, "")
    if meant and meant.partition(" ")[0] in known:
        return f"; expected {meant}"
    close = [tail] if tail in known else difflib.get_close_matches(name, known, n=1, cutoff=CLOSE)
    return f"; did you mean {close[0]}?" if close else ""
