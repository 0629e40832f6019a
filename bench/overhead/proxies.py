"""The proxies under test, each with one thread and its documented settings for this work."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PROXY_CPU = 0
REST_CPU = 1

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


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Process:
    """A child on its own CPU, its output in a file."""

    name: str
    command: list[str]
    cpu: int
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the child."""
        with self.log.open("wb") as out:
            self.popen = subprocess.Popen(
                self.command,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | self.environment,
            )
        os.sched_setaffinity(self.popen.pid, {self.cpu})  # threads come later and inherit it

    @property
    def pid(self) -> int:
        """The child's process id."""
        if self.popen is None:
            message = f"{self.name} was not started"
            raise RuntimeError(message)
        return self.popen.pid

    def stop(self) -> None:
        """Ends the child; kills it if it does not go."""
        if self.popen is None:
            return
        self.popen.terminate()
        try:
            self.popen.wait(5)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


@dataclass
class Proxy:
    """One proxy under test."""

    name: str
    port: int
    process: Process
    rust: bool = False

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"


def _haproxy(upstreams: list[str], scratch: Path, _peers: Path) -> Proxy | None:
    binary = shutil.which("haproxy") or ("/usr/sbin/haproxy" if Path("/usr/sbin/haproxy").exists() else None)
    if binary is None:
        return None
    port = free_port()
    servers = "\n".join(f"    server s{i} {u.removeprefix('http://')}" for i, u in enumerate(upstreams))
    config = scratch / "haproxy.cfg"
    config.write_text(HAPROXY_CONFIG.format(port=port, servers=servers))
    return Proxy(
        "haproxy",
        port,
        Process("haproxy", [binary, "-db", "-f", str(config)], PROXY_CPU, scratch / "haproxy.log"),
    )


def _skylb(upstreams: list[str], scratch: Path, _peers: Path) -> Proxy:
    port = free_port()
    command = [sys.executable, "-m", "skylb", "serve", "--listen", f"127.0.0.1:{port}"]
    command += ["--admin", f"127.0.0.1:{free_port()}", "--policy", "prefix"]
    command += ["--access-log", str(scratch / "skylb-access.log"), "--log-format", "json"]
    for upstream in upstreams:
        command += ["--replica", upstream]
    return Proxy("skylb", port, Process("skylb", command, PROXY_CPU, scratch / "skylb.log"))


def _router(name: str, program: str, arguments: list[str]) -> Callable[[list[str], Path, Path], Proxy | None]:
    def build(upstreams: list[str], scratch: Path, peers: Path) -> Proxy | None:
        binary = peers / "bin" / program
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
        return Proxy(
            name, port, Process(name, command, PROXY_CPU, scratch / f"{name}.log", environment), rust=True
        )

    return build


BUILDERS: dict[str, Callable[[list[str], Path, Path], Proxy | None]] = {
    "haproxy": _haproxy,
    "skylb": _skylb,
    "vllm-router": _router("vllm-router", "vllm-router", []),
    "sglang-router": _router("sglang-router", "sglang-router", ["launch"]),
    "smg": _router("smg", "smg", ["launch"]),
}


def wait_ready(proxy: Proxy, body: bytes, timeout_s: float = 60.0) -> None:
    """Waits until a real request is answered with 200.

    Raises:
        RuntimeError: it was not ready in time, or ended; with the last lines it wrote.
    """
    deadline = time.monotonic() + timeout_s
    last = "no answer"
    while time.monotonic() < deadline:
        if proxy.process.popen is not None and proxy.process.popen.poll() is not None:
            break
        request = urllib.request.Request(
            f"{proxy.url}/v1/chat/completions", data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                answer.read()
                return
        except (OSError, urllib.error.HTTPError) as error:
            last = str(error)
        time.sleep(0.2)
    tail = proxy.process.log.read_text(errors="replace")[-2000:]
    message = f"{proxy.name} is not ready: {last}\n{tail}"
    raise RuntimeError(message)
