"""The tests' own waiting for processes: by what they do, not by the time that passes."""

import sys
import time

import pytest

from tests.support.processes import Child

SLOW = """
import time
for _ in range(20):
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    time.sleep(0.1)
print("up", flush=True)
time.sleep(60)
"""
SPIN = "while True: pass"
SLEEP = "import time; print('up', flush=True); time.sleep(60)"


def test_a_process_that_is_kept_from_the_cpu_is_waited_for() -> None:
    starved = Child([sys.executable, "-c", SLOW])
    began = time.monotonic()
    try:
        starved.require(lambda: "up" in starved.text(), timeout_s=1.0, what="it")
    finally:
        starved.stop()
    assert time.monotonic() - began > 1.0


def test_a_process_that_spins_and_gets_nowhere_is_given_up() -> None:
    spinning = Child([sys.executable, "-c", SPIN])
    try:
        with pytest.raises(AssertionError, match=r"not within 1\.0 s of CPU time"):
            spinning.require(lambda: False, timeout_s=1.0, what="it")
    finally:
        spinning.stop()


def test_a_process_that_stands_still_is_given_up_with_what_it_said() -> None:
    still = Child([sys.executable, "-c", SLEEP])
    try:
        with pytest.raises(AssertionError, match=r"stood still for 1\.0 s; last: False\nup"):
            still.require(lambda: False, timeout_s=1.0, what="it")
    finally:
        still.stop()
