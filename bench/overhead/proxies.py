"""The proxies under test, each with one thread and its documented settings for this work."""

import sys
from collections.abc import Callable
from pathlib import Path

from bench.processes import PROXY_CPU, Process, Proxy, free_port, program

ON_ITS_OWN = frozenset({PROXY_CPU})

HAPROXY_CONFIG = """\
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    option http-no-delay
    option http-keep-alive
    http-reuse always
    timeout connect 2s
    timeout client 120s
    timeout server 120s
frontend f
    bind 127.0.0.1:{port}
    default_backend b
backend b
    balance roundrobin
{servers}
"""


def _haproxy(upstreams: list[str], scratch: Path, _peers: Path) -> Proxy | None:
    binary = program("haproxy")
    if binary is None:
        return None
    port = free_port()
    servers = "\n".join(f"    server s{i} {u.removeprefix('http://')}" for i, u in enumerate(upstreams))
    config = scratch / "haproxy.cfg"
    config.write_text(HAPROXY_CONFIG.format(port=port, servers=servers))
    return Proxy(
        "haproxy",
        port,
        Process("haproxy", [binary, "-db", "-f", str(config)], ON_ITS_OWN, scratch / "haproxy.log"),
    )


def _skylb(upstreams: list[str], scratch: Path, _peers: Path) -> Proxy:
    port = free_port()
    command = [sys.executable, "-m", "skylb", "serve", "--listen", f"127.0.0.1:{port}"]
    command += ["--admin", f"127.0.0.1:{free_port()}", "--policy", "prefix"]
    command += ["--access-log", str(scratch / "skylb-access.log"), "--log-format", "json"]
    for upstream in upstreams:
        command += ["--replica", upstream]
    return Proxy("skylb", port, Process("skylb", command, ON_ITS_OWN, scratch / "skylb.log"))


def _router(
    name: str, executable: str, arguments: list[str]
) -> Callable[[list[str], Path, Path], Proxy | None]:
    def build(upstreams: list[str], scratch: Path, peers: Path) -> Proxy | None:
        binary = peers / "bin" / executable
        if not binary.exists():
            return None
        port = free_port()
        command = [str(binary), *arguments, "--host", "127.0.0.1", "--port", str(port)]
        command += [
            "--policy",
            "cache_aware",
            "--worker-urls",
            *upstreams,
            "--prometheus-port",
            str(free_port()),
        ]
        environment = {"TOKIO_WORKER_THREADS": "1", "RAYON_NUM_THREADS": "1"}
        return Proxy(name, port, Process(name, command, ON_ITS_OWN, scratch / f"{name}.log", environment))

    return build


BUILDERS: dict[str, Callable[[list[str], Path, Path], Proxy | None]] = {
    "haproxy": _haproxy,
    "skylb": _skylb,
    "vllm-router": _router("vllm-router", "vllm-router", []),
    "sglang-router": _router("sglang-router", "sglang-router", ["launch"]),
    "smg": _router("smg", "smg", ["launch"]),
}
