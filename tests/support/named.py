"""A real name server on loopback: BIND 9, with one zone that takes signed updates."""

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import Child, free_port

NAMED = shutil.which("named", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

CONFIGURATION = """
options {{
  directory "{directory}";
  pid-file none;
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  recursion no;
  dnssec-validation no;
}};
controls {{ }};
key "skylb" {{ algorithm hmac-sha256; secret "{secret}"; }};
zone "example.org" {{
  type primary;
  file "{directory}/zone";
  update-policy {{ grant skylb zonesub A AAAA; }};
}};
"""

ZONE = """$TTL 60
@ IN SOA ns hostmaster 1 3600 600 86400 60
@ IN NS ns
ns IN A 127.0.0.1
"""


@dataclass
class NameServer:
    """Where it answers, and the key as a setting takes it."""

    port: int
    key: str
    child: Child


@contextmanager
def name_server(directory: Path) -> Iterator[NameServer]:
    """One with the zone ``example.org``."""
    assert NAMED is not None
    port = free_port()
    secret = base64.b64encode(os.urandom(32)).decode()
    (directory / "zone").write_text(ZONE)
    configuration = directory / "named.conf"
    configuration.write_text(CONFIGURATION.format(directory=directory, port=port, secret=secret))
    child = Child([NAMED, "-g", "-n", "1", "-c", str(configuration)])
    try:
        child.require(lambda: "all zones loaded" in child.text(), timeout_s=20, what="named")
        yield NameServer(port, f"hmac-sha256:skylb:{secret}", child)
    finally:
        child.stop()
