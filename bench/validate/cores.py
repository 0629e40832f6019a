"""Which core runs what, so that micro-runs and a mixed run disturb the engine alike.

vLLM's engine core and its worker wait for each other in a loop of ``sched_yield`` (for up to a second after
the last message), so wherever the kernel puts them they take a core each, and the API server, the balancer
and the load generator get what is left: much in a micro-run, little in a mixed one. On one core the two
yield to each other, which costs little, and the rest has the other core for itself.
"""

import os
from contextlib import suppress
from pathlib import Path

ENGINE_CORE, OTHERS_CORE = 0, 1
_ENGINE_NAMES = ("VLLM::EngineCore", "VLLM::Worker")


def apart(session: int) -> list[int]:
    """Puts the engine's steps on one core, the rest of ``session`` and this process on another.

    What this process starts later inherits its core.

    Args:
        session: the server's process, which leads a session of its own.

    Returns:
        Processes that compute steps; none, and nothing is put anywhere, where there is one core only.

    Raises:
        RuntimeError: no process of the server has a name of vLLM's.
    """
    if not {ENGINE_CORE, OTHERS_CORE} <= os.sched_getaffinity(0):
        return []
    engine = []
    for pid in _processes(session):
        computes = _name(pid).startswith(_ENGINE_NAMES)
        engine += [pid] if computes else []
        _put(pid, ENGINE_CORE if computes else OTHERS_CORE)
    if not engine:
        raise RuntimeError(f"no process of session {session} is named {' or '.join(_ENGINE_NAMES)}")
    _put(os.getpid(), OTHERS_CORE)
    return engine


def ran_s(pids: list[int]) -> float:
    """Seconds that threads of these processes have run."""
    total_ns = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread may end meanwhile
                total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def _processes(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(ProcessLookupError):
                if os.getsid(int(entry.name)) == session:
                    found.append(int(entry.name))
    return found


def _name(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    return ""


def _put(pid: int, core: int) -> None:
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), {core})
