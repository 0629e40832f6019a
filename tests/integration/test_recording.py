"""`skylb serve --record`: what is in a recording, what replays it, and a directory that is full."""

import asyncio
import json
import os
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from skylb.cli import main
from skylb.tools.load import LoadSettings, run
from skylb.tools.load.generate import generate
from skylb.tools.load.settings import SyntheticSettings, parse_target
from skylb.tools.load.turn import Turn
from skylb.tools.load.workload import group_users, read_workload
from tests.support.processes import SKYLB, Balancer, balancer, eventually, free_port, mocks
from tests.support.workers import engine_pid, engine_pid_if_any, pids

SYNTHETIC = SyntheticSettings(users=4, sessions=2, turns=3.0, systems=2, think_s=0.02, seed=7)
MOCK = ("--profile", "h100-8b", "--time-scale", "0.1")


def lengths(turn: Turn) -> tuple[int, int]:
    """Tokens of prompt and answer."""
    return turn.in_tokens, turn.out_tokens


def load(url: str, synthetic: SyntheticSettings = SYNTHETIC) -> int:
    """Sends made-up conversations; how many requests were answered."""
    settings = LoadSettings(target=(parse_target(url),), synthetic=synthetic, progress="off")
    report = asyncio.run(run(settings))
    assert report.total.failed == 0
    return report.total.ok


def ended(front: Balancer) -> None:
    """Stops a balancer in order."""
    front.child.send(signal.SIGTERM)
    eventually(lambda: not front.child.alive(), what="the end", of=[])


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one process", "workers"])
def test_a_recording_has_the_requests_their_order_and_what_they_share(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    directory = tmp_path / "trace"
    arguments = ["--record", str(directory), *workers]
    with mocks(2, *MOCK) as urls, balancer(*urls, arguments=arguments) as front:
        count = load(front.url)
        eventually(lambda: front.metric("skylb_record_requests_total") == count, what="all are written")
        assert front.metric("skylb_record_active") == 1
        ended(front)
    sent = generate(SYNTHETIC)
    found = read_workload(directory).turns
    assert len(found) == count == len(sent)
    assert sorted(map(lengths, found)) == sorted(map(lengths, sent))
    assert {turn.region for turn in found} == {"local"}
    assert len({turn.session for turn in found}) == len({turn.session for turn in sent})
    assert len({turn.user for turn in found}) == len({turn.user for turn in sent})
    shapes = [
        sorted(
            sorted(len(session.followers) for session in user.sessions)
            for user in group_users(turns)["local" if turns is found else sent[0].region]
        )
        for turns in (found, sent)
    ]
    assert shapes[0] == shapes[1], "the same requests follow each other"
    text = b"".join(path.read_bytes() for path in directory.iterdir() if path.suffix == ".jsonl")
    assert b"user-" not in text


def test_a_recording_goes_on_when_an_engine_process_has_died(tmp_path: Path) -> None:
    directory = tmp_path / "trace"
    arguments = ["--record", str(directory), "--workers", "2"]
    with mocks(2, *MOCK) as urls, balancer(*urls, arguments=arguments) as front:
        first = load(front.url)
        eventually(lambda: front.metric("skylb_record_requests_total") == first, what="all are written")
        before = engine_pid(front)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: engine_pid_if_any(front) not in {None, before}, what="another engine process")
        eventually(lambda: len(pids(front)) == 2, what="both workers have lines")
        second = load(front.url)
        eventually(lambda: front.metric("skylb_record_requests_total") == second, what="all are written")
        ended(front)
    assert len(read_workload(directory).turns) == first + second


def test_a_recording_is_replayed_by_sim_and_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "trace"
    with mocks(2, *MOCK) as urls:
        with balancer(*urls, arguments=["--record", str(directory), "--policy", "prefix"]) as front:
            count = load(front.url)
            ended(front)
        report = tmp_path / "load.json"
        words = ["load", "--workload", str(directory), "--target", urls[0], "--mode", "open"]
        assert main([*words, "--json-file", str(report), "--progress", "off"]) == 0
        assert json.loads(report.read_text())["total"]["ok"] == count
    scenario = tomllib.loads((directory / "scenario.toml").read_text())
    assert scenario["engine"]["policy"] == "prefix"
    (region,) = scenario["regions"]
    # Replicas of one measured speed are one kind: the two may differ where the machine is busy.
    assert sum(kind["count"] for kind in region["replicas"]) == 2
    report = tmp_path / "sim.json"
    words = ["sim", str(directory), "--sweep", "engine.policy=prefix,round_robin", "--progress", "off"]
    assert main([*words, "--json-file", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["requests"] == count
    # How many end in time depends on the estimated speed.
    assert all(point["runs"][0]["total"]["completed"] > 0 for point in found["points"])
    assert main(["trace", "mooncake", str(directory), "--output", str(tmp_path / "m.jsonl")]) == 0
    assert len(read_workload(tmp_path / "m.jsonl").turns) == count
    capsys.readouterr()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "skylb-test", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_when_the_directory_is_full_recording_stops_and_requests_are_served(full: Path) -> None:
    with mocks(1, "--profile", "instant") as urls:
        with balancer(*urls, arguments=["--record", str(full), "--log-level", "info"]) as front:
            many = SyntheticSettings(users=16, sessions=20, turns=2.0, think_s=0.0)
            sent = load(front.url, many)
            eventually(lambda: front.metric("skylb_record_active") == 0, what="recording stops")
            written = front.metric("skylb_record_requests_total")
            dropped = front.metric("skylb_record_dropped_total")
            assert 0 < written < sent
            assert 0 < dropped <= sent - written
            again = load(front.url, many)
            assert again > 0
            assert front.metric("skylb_record_requests_total") == written
            ended(front)
            said = [line for line in front.child.text().splitlines() if "recording to" in line]
    assert len(said) == 1
    assert "No space left on device; requests are served as before" in said[0]
    assert len(read_workload(full).turns) == written, "whole lines"


def test_a_directory_that_is_none_ends_the_start_and_names_the_setting(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    command = [*SKYLB, "serve", "--replica", "http://127.0.0.1:9", "--record", str(file)]
    command += ["--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "record: " in done.stderr
    assert "it is no directory" in done.stderr
