"""Starts and ends real processes on loopback."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")

SKYLB = [sys.executable, "-m", "skylb"]


PATIENCE_S = 30.0
"""What is waited for comes sooner, even on a machine that stands still for seconds."""

LOOK_S = 0.5
"""Between two looks at what a process that is waited for has done."""

TICKS_PER_S = os.sysconf("SC_CLK_TCK")

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
PORTS = range(15_000 + WORKER, 32_768, WORKERS)
"""Below Linux's ephemeral ports: nobody who asks for any port or connects somewhere is given one of these,
nor is a worker that runs tests beside us."""

LEAST = 19
"""The lowest priority there is (``nice``)."""

_ports_given: set[int] = set()


def free_port() -> int:
    """A port that was free a moment ago, and that this process is given only once."""
    while True:
        port = secrets.choice(PORTS)
        if port in _ports_given:
            continue
        _ports_given.add(port)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


class Patience:
    """How long to wait for something: for a time, or for processes that have to do it while they get on.

    Processes may take ``timeout_s`` of CPU time each, and may stand still for ``timeout_s`` in a row: those
    that others keep from the CPU are waited for.
    """

    def __init__(self, timeout_s: float, of: "Sequence[Child]" = ()) -> None:
        self._timeout_s = timeout_s
        self._of = of
        self._began_s = self._last_s = sum(child.cpu_s() for child in of)
        self._moved = self._looked = time.monotonic()

    def over(self) -> str:
        """Why there is no use in waiting longer; empty while there is."""
        for child in self._of:
            if not child.alive():
                return f"the process ended with {child.popen.returncode}"
        now = time.monotonic()
        if not self._of:
            return f"not in {self._timeout_s} s" if now - self._moved > self._timeout_s else ""
        if now - self._looked < LOOK_S:
            return ""
        self._looked, cpu_s = now, sum(child.cpu_s() for child in self._of)
        if cpu_s != self._last_s:  # less: one of its processes has ended
            self._last_s, self._moved = cpu_s, now
        if cpu_s - self._began_s > self._timeout_s * len(self._of):
            return f"not within {self._timeout_s} s of CPU time"
        if now - self._moved > self._timeout_s:
            return f"the process has stood still for {self._timeout_s} s"
        return ""


def eventually(
    probe: Callable[[], T | Literal[False] | None],
    *,
    timeout_s: float = PATIENCE_S,
    what: str = "condition",
    of: "Sequence[Child]" = (),
) -> T:
    """Polls until ``probe`` returns something true; the value. ``of``: the processes that bring it about.

    Raises:
        AssertionError: `Patience` is over; with the first process's output.
    """
    patience = Patience(timeout_s, of)
    while not (value := probe()):
        if why := patience.over():
            if value := probe():  # it has come since the last look, and be it with the end of the process
                return value
            said = "".join(f"\n{child.text()[-3000:]}" for child in of[:1])
            message = f"{what}: {why}; last: {value!r}{said}"
            raise AssertionError(message)
        time.sleep(0.02)
    return value


def get(url: str, timeout_s: float = PATIENCE_S) -> bytes:
    """The body of a GET; errors raise."""
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        return bytes(answer.read())


def post_stream(url: str, body: object, timeout_s: float = PATIENCE_S) -> Iterator[str]:
    """The data of each event of the stream that answers a request."""
    encoded = json.dumps(body).encode()
    request = urllib.request.Request(url, encoded, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        for line in answer:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode()


def answers(url: str) -> bool:
    """Whether a GET is answered with 2xx."""
    try:
        get(url, 2.0)
    except (OSError, urllib.error.HTTPError):
        return False
    return True


class Child:
    """A process, in a session of its own, whose output goes to a file; ended and reaped by ``stop``."""

    def __init__(
        self,
        command: list[str],
        *,
        environment: dict[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.out = Path(tempfile.mkstemp(prefix="skylb-test-", suffix=".log")[1])
        with self.out.open("wb") as out:
            self.popen = subprocess.Popen(
                command,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | (environment or {}),
                pass_fds=descriptors,
                start_new_session=True,
            )

    def step_back(self) -> None:
        """From now on it gets what the others leave of the CPU, and so does all that it has started."""
        os.setpriority(os.PRIO_PGRP, self.pid, LEAST)
        # Where Linux shares the CPU among sessions first, a priority counts within its session only. Not
        # everybody may say so, or not so often: tests then only take longer.
        with suppress(OSError):
            Path(f"/proc/{self.pid}/autogroup").write_text(str(LEAST))

    @property
    def pid(self) -> int:
        """Process id."""
        return self.popen.pid

    def text(self) -> str:
        """All it has written."""
        return self.out.read_text(errors="replace")

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.popen.poll() is None

    def cpu_s(self) -> float:
        """CPU time of it and of all that it started, in whichever session, as far as they run."""
        found: dict[int, tuple[int, int, int]] = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it ended meanwhile
                fields = stat.read_text().rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                found[int(stat.parent.name)] = int(fields[1]), int(fields[3]), ticks
        own = {self.pid}
        while more := {pid for pid, of in found.items() if pid not in own and own & {*of[:2]}}:
            own |= more
        return sum(found[pid][2] for pid in own & found.keys()) / TICKS_PER_S

    def ends(self) -> int:
        """Its exit status, once it has ended, for as long as it gets on."""
        self.require(lambda: not self.alive(), what="its end")
        return int(self.popen.returncode)

    def require(
        self, condition: Callable[[], T | Literal[False] | None], *, timeout_s: float = PATIENCE_S, what: str
    ) -> T:
        """Waits for a condition, as long as the process gets on; fails with its output."""
        return eventually(condition, timeout_s=timeout_s, what=what, of=[self])

    def kill(self) -> None:
        """SIGKILL to it and all it started, and waits."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.popen.send_signal(number)

    def stop(self, timeout_s: float = 10.0) -> int:
        """SIGTERM, then SIGKILL after ``timeout_s``; the exit status."""
        if self.alive():
            self.popen.terminate()
        try:
            status = self.popen.wait(timeout_s)
            self.kill()
        except subprocess.TimeoutExpired:
            self.kill()
            status = self.popen.returncode
        self.out.unlink(missing_ok=True)
        return status


@dataclass
class Balancer:
    """A running ``skylb serve``."""

    child: Child
    port: int
    admin_port: int
    access_log: Path

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        """The admin listener."""
        return f"http://127.0.0.1:{self.admin_port}"

    def state(self) -> dict[str, Any]:
        """``/state``."""
        state: dict[str, Any] = json.loads(get(f"{self.admin}/state"))
        return state

    def metrics(self) -> str:
        """``/metrics``."""
        return get(f"{self.admin}/metrics").decode()

    def metric(self, name: str) -> float:
        """Sum of all samples of one name."""
        return sample_sum(self.metrics(), name)

    def log(self) -> list[dict[str, Any]]:
        """The access log so far."""
        return [json.loads(line) for line in self.access_log.read_text().splitlines()]


def sample_sum(page: str, name: str) -> float:
    """Sum over a Prometheus page's samples of ``name``, whatever their labels."""
    pattern = re.compile(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)", re.MULTILINE)
    return sum(float(value) for value in pattern.findall(page))


@contextmanager
def told_ready(arguments: Sequence[str]) -> Iterator[tuple[dict[str, str], Callable[[], bool]]]:
    """Variables for a balancer with these arguments, and whether it has said that all its processes serve.

    That matters where it has workers: until its supervisor has heard of all that they serve, the death of
    one ends all, and ``/ready`` or ``/state`` may tell of them a moment sooner. Others are not asked.
    """
    if "--workers" not in arguments:
        yield {}, lambda: True
        return
    with tempfile.TemporaryDirectory(prefix="skylb-test-") as directory:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(path := f"{directory}/notify")
            sock.setblocking(False)
            said: list[bytes] = []

            def ready() -> bool:
                with suppress(BlockingIOError):
                    while True:
                        said.extend(sock.recv(4096).splitlines())
                return b"READY=1" in said

            yield {"NOTIFY_SOCKET": path}, ready


@contextmanager
def balancer(
    *replicas: str, arguments: list[str] | None = None, wait_ready: bool = True
) -> Iterator[Balancer]:
    """``skylb serve`` in front of ``replicas``, ready unless told otherwise."""
    port, admin_port = free_port(), free_port()
    access_log = Path(tempfile.mkstemp(prefix="skylb-test-", suffix=".access.jsonl")[1])
    command = [*SKYLB, "serve", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin_port}"]
    command += ["--access-log", str(access_log), "--log-format", "json"]
    for replica in replicas:
        command += ["--replica", replica]
    command += arguments or []
    with told_ready(command) as (variables, told):
        child = Child(command, environment=variables)
        try:
            path = "ready" if wait_ready else "health"
            child.require(
                lambda: answers(f"http://127.0.0.1:{admin_port}/{path}"),
                timeout_s=PATIENCE_S,
                what="balancer ready",
            )
            if wait_ready:
                child.require(told, what="all its processes ready")
            yield Balancer(child, port, admin_port, access_log)
        except BaseException:
            print(f"balancer said:\n{child.text()[-3000:]}\n{access_log.read_text()[-3000:]}")
            raise
        finally:
            child.stop()
            access_log.unlink(missing_ok=True)


@contextmanager
def mocks(count: int, *arguments: str) -> Iterator[list[str]]:
    """``count`` mock replicas in one process; their URLs."""
    child, urls = start_mocks(count, *arguments)
    try:
        yield urls
    finally:
        child.stop()


def start_mocks(
    count: int, *arguments: str, listen: str = "127.0.0.1:0", prefix: Sequence[str] = ()
) -> tuple[Child, list[str]]:
    """Starts mock replicas; the process and their URLs, once all answer. ``prefix`` begins the command."""
    child = Child([*prefix, *SKYLB, "mock", "--listen", listen, "--count", str(count), *arguments])
    with ExitStack() as undo:
        undo.callback(child.stop)
        urls = child.require(
            lambda: (
                found if len(found := re.findall(r"https?://[\d.]+:\d+", child.text())) >= count else None
            ),
            timeout_s=PATIENCE_S,
            what="mock replicas",
        )
        undo.pop_all()
    return child, urls[:count]


@contextmanager
def standing_still(*urls: str) -> Iterator[None]:
    """The engines of mock replicas compute nothing meanwhile: no stream ends, however long a test takes."""

    def switch(*, freeze: bool) -> None:
        for url in urls:
            body = json.dumps({"freeze": freeze}).encode()
            urllib.request.urlopen(f"{url}/mock/faults", body, timeout=PATIENCE_S).close()

    switch(freeze=True)
    try:
        yield
    finally:
        switch(freeze=False)
