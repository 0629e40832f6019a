"""CPU time of a process and its children, from the kernel's own accounting."""

from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """The process and all its descendants.

    Raises:
        RuntimeError: the kernel does not list children.
    """
    pids = [pid]
    for parent in pids:
        for task in _tasks(parent):
            pids.extend(_children(task))
    return pids


def cpu_ns(pid: int) -> int:
    """Nanoseconds that all threads of the process tree ran, user and system together.

    From ``schedstat`` (Documentation/scheduler/sched-stats.rst): exact, not sampled by ticks.
    """
    return _schedstat(pid, 0)


def waited_ns(pid: int) -> int:
    """Nanoseconds that they were ready to run and had no CPU, from the same accounts."""
    return _schedstat(pid, 1)


def _schedstat(pid: int, column: int) -> int:
    total = 0
    for member in tree(pid):
        for task in _tasks(member):
            with suppress(FileNotFoundError, ProcessLookupError):  # this thread ended meanwhile
                total += int((task / "schedstat").read_text().split()[column])
    return total


def _tasks(pid: int) -> list[Path]:
    """The directories of its threads; none if it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return list((PROC / str(pid) / "task").iterdir())
    return []


def _children(task: Path) -> list[int]:
    try:
        return [int(child) for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError) as error:
        if isinstance(error, FileNotFoundError) and task.exists():
            message = f"{task}/children is missing: the kernel must be built with CONFIG_PROC_CHILDREN"
            raise RuntimeError(message) from error
        return []  # this thread ended meanwhile


def rss_bytes(pid: int) -> int:
    """Resident memory of the process tree."""
    pages = sum(int((PROC / str(member) / "statm").read_text().split()[1]) for member in tree(pid))
    return pages * 4096
