"""CPU time of a process and its children, from the kernel's own accounting."""

from pathlib import Path

PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    pids = [pid]
    for parent in pids:
        for children in (PROC / str(parent) / "task").glob("*/children"):
            pids.extend(int(child) for child in children.read_text().split())
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
        for stat in (PROC / str(member) / "task").glob("*/schedstat"):
            total += int(stat.read_text().split()[column])
    return total


def rss_bytes(pid: int) -> int:
    """Resident memory of the process tree."""
    pages = sum(int((PROC / str(member) / "statm").read_text().split()[1]) for member in tree(pid))
    return pages * 4096
