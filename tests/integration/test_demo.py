"""`skylb demo`: it shows, it ends, and it leaves nothing behind."""

import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.processes import SKYLB, Child, eventually

pytestmark = pytest.mark.any_clock


@contextmanager
def demo(*arguments: str) -> Iterator[Child]:
    child = Child([*SKYLB, "demo", "--users", "8", "--replicas", "1", *arguments])
    try:
        yield child
    finally:
        child.stop()


def children_of(pid: int) -> list[int]:
    """Processes whose parent is ``pid``, zombies left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it ended meanwhile
        if int(parent) == pid and state != "Z":
            found.append(int(path.parent.name))
    return found


def running(pid: int) -> bool:
    """Whether a process is there and more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def under_load(child: Child) -> list[int]:
    """Waits until the demo has shown its first line; its processes: replicas, the sea, balancers."""
    return first_line(child, 7)


def first_line(child: Child, processes: int) -> list[int]:
    """The demo's processes, of which there are so many when it has shown its first line."""
    found: list[int] = []

    def look() -> bool:
        found[:] = max(found, children_of(child.pid), key=len)  # soon it may end
        return "requests/s" in child.text()

    child.require(look, what="the demo's first line")
    assert len(found) == processes
    return found


def gone(pids: list[int]) -> bool:
    return not any(map(running, pids))


def test_it_ends_by_itself_with_a_summary_and_leaves_nothing_behind() -> None:
    with demo("--duration-s", "4") as child:
        processes = under_load(child)
        assert child.ends() == 0
        assert gone(processes)
        text = child.text()
    assert "requests answered, 0 failed" in text
    assert "held at once" in text
    assert "found in their caches" in text
    assert all(f"{region}: " in text for region in ("us", "eu", "asia"))
    assert "live page: http://127.0.0.1:" in text
    assert "requests forwarded between regions: " in text


def test_control_c_ends_it_with_a_summary() -> None:
    with demo() as child:
        processes = under_load(child)
        child.send(signal.SIGINT)
        assert child.ends() == 0
        assert gone(processes)
        assert "requests answered" in child.text()


def test_killed_it_leaves_nothing_behind() -> None:
    with demo() as child:
        processes = under_load(child)
        child.kill()
        eventually(lambda: gone(processes), what="the demo's processes end with it")


def test_a_process_that_fails_ends_it_with_that_processs_last_words() -> None:
    with demo() as child:
        processes = under_load(child)
        replicas = next(pid for pid in processes if b"mock" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(replicas, signal.SIGKILL)
        assert child.ends() == 1
        assert gone(processes)
        assert re.search(r"skylb mock (us|eu|asia)-1 ended with status -9", child.text())
        assert "ready" in child.text()  # the last thing it said


def test_settings_that_make_no_sense_are_named() -> None:
    with demo("--replicas", "0") as child:
        assert child.ends() == 2
        assert "--replicas" in child.text()


def test_one_region_needs_no_sea() -> None:
    with demo("--regions", "eu", "--duration-s", "3") as child:
        first_line(child, 2)
        assert child.ends() == 0
        assert "requests answered, 0 failed" in child.text()


def test_its_page_is_not_for_other_machines() -> None:
    with demo("--page", "0.0.0.0:0") as child:
        assert child.ends() == 2
        assert "its buttons kill processes" in child.text()


def test_with_continuing_on_a_killed_replica_fails_nobody() -> None:
    child = Child([*SKYLB, "demo", "--users", "12", "--replicas", "2", "--duration-s", "30"])
    try:
        child.require(lambda: "requests/s" in child.text(), what="the demo's first line")
        found = re.search(r"live page: (\S+)", child.text())
        assert found is not None
        assert press(found[1], "set", "continuing", "on") == "streams go on where a replica dies"
        answered = len(re.findall("requests/s", child.text()))
        # Streams that had begun before are not asked for ids: they end within some lines of two seconds.
        child.require(lambda: len(re.findall("requests/s", child.text())) > answered + 7, what="more lines")
        # One: of several, two might meet the same request before its first byte, and it has two attempts.
        assert press(found[1], "kill", "replica", "eu-1") == "replica eu-1 killed"
        assert child.ends() == 0
        assert "requests answered, 0 failed" in child.text()
    finally:
        child.stop()


def press(page: str, verb: str, what: str, name: str) -> str:
    """Presses a button of the page; what was done."""
    body = json.dumps({"do": verb, "what": what, "name": name}).encode()
    request = urllib.request.Request(f"{page}actions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(json.loads(answer.read())["done"])
