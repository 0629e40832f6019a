"""A real vLLM on the CPU, with a tiny random model."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import Child, answers, free_port, get, sample_sum

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}

COMMON = [
    "--enforce-eager", "--dtype", "bfloat16", "--max-model-len", "4096",
    "--enable-prefix-caching", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log",
]  # fmt: skip

START_S = 600.0
"""CPU time of one server's start, which takes 100 to 150 s, and time in which it may stand still."""


@dataclass
class Vllm:
    """One running server."""

    child: Child
    url: str

    def metric(self, name: str) -> float:
        """Sum of a metric's samples."""
        return sample_sum(get(f"{self.url}/metrics", timeout_s=60.0).decode(), name)

    @property
    def running(self) -> float:
        """Requests in the batch."""
        return self.metric("vllm:num_requests_running")

    @property
    def waiting(self) -> float:
        """Requests outside the batch."""
        return self.metric("vllm:num_requests_waiting")


def children(servers: Sequence[Vllm]) -> list[Child]:
    """Their processes."""
    return [server.child for server in servers]


def installed() -> Path:
    """Directory of the vLLM environment, made by ``environment.sh``."""
    return Path(os.environ["VLLM_ENVIRONMENT"])


@contextmanager
def fleet(
    count: int, *arguments: str, name: str = "tiny", model: Path | None = None, dummy: bool = True
) -> Iterator[list[Vllm]]:
    """``count`` servers started side by side, ready; of the tiny model unless told otherwise.

    ``dummy``: with vLLM's own random weights, by which an answer hardly depends on its prompt.
    """
    root = installed()
    with ExitStack() as stack:
        servers = []
        for _ in range(count):
            port = free_port()
            command = [str(root / "bin/python"), "-m", "vllm.entrypoints.openai.api_server"]
            command += ["--model", str(model or root / "model"), "--served-model-name", name]
            command += ["--load-format", "dummy"] if dummy else []
            command += ["--host", "127.0.0.1", "--port", str(port), *COMMON, *arguments]
            child = Child(command, environment=ENVIRONMENT)
            stack.callback(child.stop, 30.0)
            servers.append(Vllm(child, f"http://127.0.0.1:{port}"))
        for server in servers:
            server.child.require(
                lambda url=server.url: answers(f"{url}/health"), timeout_s=START_S, what="vLLM"
            )
        for server in servers:
            # Its processes spin while they wait for one another, and would keep a balancer on the same two
            # cores from running for seconds; a fleet's engines have machines of their own. Not before it is
            # up: beside other work, the lowest priority would keep it from ever starting.
            server.child.step_back()
        yield servers


def series(page: str, prefix: str) -> list[str]:
    """Names of a page's metrics that begin with ``prefix``."""
    return sorted(set(re.findall(rf"^({re.escape(prefix)}\w+)", page, re.MULTILINE)))
