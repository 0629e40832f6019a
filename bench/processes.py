"""Programs under test and what stands around them: started on given CPUs, waited for, ended for certain."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes import free_port

__all__ = [
    "PROXY_CPU",
    "REST_CPU",
    "Process",
    "Proxy",
    "bound",
    "free_port",
    "heed_stops",
    "program",
    "ready_lines",
    "replicas",
    "rest_cpus",
    "wait_ready",
]

_CPUS = sorted(os.sched_getaffinity(0))
PROXY_CPU, REST_CPU = _CPUS[0], _CPUS[1 % len(_CPUS)]
"""Of those that this process may use: one for proxies, and one for everything else if there is another."""

MOCKS_READY_S = 60.0
STOP_S = 5.0


def heed_stops() -> None:
    """Makes SIGTERM what Ctrl-C is, once, and Ctrl-C work even if the shell ignores it for us.

    All children are ended on the way out, which further signals must not cut short.
    """
    stops = (signal.SIGINT, signal.SIGTERM)

    def interrupted(_number: int, _frame: object) -> None:
        for each in stops:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in stops:
        signal.signal(each, interrupted)


def rest_cpus() -> frozenset[int]:
    """All CPUs that this process may use but that of the proxies; that one too if there is no other."""
    allowed = frozenset(os.sched_getaffinity(0))
    return allowed - {PROXY_CPU} or allowed


def program(name: str) -> str | None:
    """The path of an installed program; Debian keeps servers where ordinary users do not look."""
    there = Path("/usr/sbin") / name
    return shutil.which(name) or (str(there) if there.exists() else None)


@dataclass
class Process:
    """A child on its own CPUs, its output in a file; whatever it starts ends with it.

    Args:
        cpus: where it runs; empty: anywhere.
    """

    name: str
    command: list[str]
    cpus: frozenset[int]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the child; it does not outlive a fault on the way."""
        with self.log.open("wb") as out:
            self.popen = subprocess.Popen(
                self.command,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | self.environment,
                start_new_session=True,
            )
        if self.cpus:
            try:
                os.sched_setaffinity(self.popen.pid, self.cpus)  # threads come later and inherit it
            except BaseException:
                self.stop()
                raise

    @property
    def pid(self) -> int:
        """The child's process id."""
        if self.popen is None:
            message = f"{self.name} was not started"
            raise RuntimeError(message)
        return self.popen.pid

    def wait(self, timeout_s: float) -> int:
        """Its exit status, once it has ended.

        Raises:
            RuntimeError: it did not end in time.
        """
        if self.popen is None:
            raise RuntimeError(f"{self.name} was not started")
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{self.name} did not end in {timeout_s:g} s") from error

    def ended(self) -> bool:
        """Whether it was started and has ended."""
        return self.popen is not None and self.popen.poll() is not None

    def tail(self) -> str:
        """The last that it wrote."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def stop(self) -> None:
        """Ends the child; kills it if it does not go, and all that it has started."""
        if self.popen is None:
            return
        self.popen.terminate()
        try:
            self.popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)


@dataclass
class Proxy:
    """One proxy under test."""

    name: str
    port: int
    process: Process
    key: str = ""
    """API key that its clients must show."""

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"


def wait_ready(proxy: Proxy, body: bytes, timeout_s: float = 60.0) -> None:
    """Waits until a real request is answered with 200.

    Raises:
        RuntimeError: it was not ready in time, or ended; with the last lines it wrote.
    """
    deadline = time.monotonic() + timeout_s
    last = "no answer"
    headers = {"Content-Type": "application/json"}
    if proxy.key:
        headers["Authorization"] = f"Bearer {proxy.key}"
    while time.monotonic() < deadline and not proxy.process.ended():
        request = urllib.request.Request(f"{proxy.url}/v1/chat/completions", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                answer.read()
                return
        except (OSError, urllib.error.HTTPError) as error:
            last = str(error)
        time.sleep(0.2)
    message = f"{proxy.name} is not ready: {last}\n{proxy.process.tail()}"
    raise RuntimeError(message)


@contextmanager
def replicas(module: Sequence[str], count: int, cpus: frozenset[int]) -> Iterator[list[str]]:
    """Runs a Python module that serves replicas; their URLs."""
    with tempfile.TemporaryDirectory() as scratch:
        process = Process("replicas", [sys.executable, "-m", *module], cpus, Path(scratch) / "replicas.log")
        try:
            process.start()
            yield bound(process, count)
        finally:
            process.stop()


def bound(process: Process, count: int) -> list[str]:
    """Waits until the replicas are ready; their URLs.

    Raises:
        RuntimeError: they ended, or were not ready in time.
    """
    lines = ready_lines(process)
    return [line for line in lines if line.startswith("http://")][:count]


def ready_lines(process: Process) -> list[str]:
    """Waits for the line ``ready`` of one of our own tools; all that it wrote.

    Raises:
        RuntimeError: it ended, or was not ready in time.
    """
    deadline = time.monotonic() + MOCKS_READY_S
    while True:
        lines = process.log.read_text().splitlines()
        if "ready" in lines:
            return lines
        if time.monotonic() > deadline or process.ended():
            raise RuntimeError("\n".join(lines))
        time.sleep(0.05)
