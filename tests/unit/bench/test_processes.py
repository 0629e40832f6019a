"""Children of the benchmarks, and what the kernel says of their CPU time."""

import os
import sys
from pathlib import Path

import pytest

from bench.overhead import cpu
from bench.processes import PROXY_CPU, REST_CPU, Process


def test_proxies_get_a_cpu_that_this_process_may_use() -> None:
    assert {PROXY_CPU, REST_CPU} <= os.sched_getaffinity(0)


def test_a_child_that_cannot_be_placed_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, cpus: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    child = Process("child", [sys.executable, "-c", "input()"], frozenset({0}), tmp_path / "log")
    with pytest.raises(OSError, match="Invalid argument"):
        child.start()
    assert child.ended()


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for the kernel's."""
    monkeypatch.setattr(cpu, "PROC", tmp_path)
    return tmp_path


def test_the_cpu_time_of_a_tree_is_that_of_all_its_threads(proc: Path) -> None:
    thread(proc, 1, 1, "2", "100 7 3")
    thread(proc, 1, 11, "", "20 1 3")
    thread(proc, 2, 2, "", "5 2 3")
    assert cpu.tree(1) == [1, 2]
    assert cpu.cpu_ns(1) == 125
    assert cpu.waited_ns(1) == 10


def test_a_thread_that_ends_meanwhile_costs_its_own_figures_only(proc: Path) -> None:
    thread(proc, 1, 1, "2 3", "100 7 3")
    (thread(proc, 2, 2, "", "5 2 3") / "schedstat").unlink()  # process 3 is gone altogether
    assert cpu.cpu_ns(1) == 100
    assert cpu.cpu_ns(4) == 0


def test_a_kernel_that_does_not_list_children_is_an_error(proc: Path) -> None:
    (thread(proc, 1, 1, "", "100 7 3") / "children").unlink()
    with pytest.raises(RuntimeError, match="CONFIG_PROC_CHILDREN"):
        cpu.cpu_ns(1)


def thread(proc: Path, process: int, number: int, children: str, schedstat: str) -> Path:
    """One thread as the kernel shows it."""
    task = proc / str(process) / "task" / str(number)
    task.mkdir(parents=True)
    (task / "children").write_text(children)
    (task / "schedstat").write_text(schedstat)
    return task
