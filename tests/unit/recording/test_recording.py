"""A recording whose thread meets faults, and two recordings in one directory."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skylb import _core
from skylb.recording import recording as recording_module
from skylb.recording.fleet import NAME, Balancer
from skylb.recording.recording import Recording
from tests.support.plane import until

STATE = msgspec.json.encode({"replicas": []})


class Source:
    """An engine without replicas."""

    def __init__(self) -> None:
        self.on: list[bool] = []

    def record_prompts(self, on: bool) -> None:
        self.on.append(on)

    def state(self) -> bytes:
        return STATE


def a_recording(directory: Path, source: Source) -> Recording:
    made = Recording(
        directory,
        recorder=_core.Recorder(_core.LOG_OFF, 0, "predictive", 0),
        source=source,
        balancer=Balancer("eu", {}, 16),
        bytes_max=1 << 20,
        block_bytes=64,
    )
    made.open()
    return made


def once(directory: Path) -> None:
    """A recording from its start to its end."""

    async def test() -> None:
        made = a_recording(directory, Source())
        made.start()
        made.end()
        made.stop()

    asyncio.run(test())


def visit(made: Recording) -> None:
    """Has the thread come round at once."""
    made._wake.set()


def failing(times: int | None = None) -> Callable[..., Any]:
    """Fails so many times, or always; then nothing."""
    calls = 0

    def fail(*_: object) -> str:
        nonlocal calls
        calls += 1
        if times is None or calls <= times:
            raise RuntimeError("planted")
        return "described"

    return fail


def test_a_fault_ends_the_recording_in_order_and_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Recording, "_take", failing())
    source = Source()

    async def test() -> None:
        made = a_recording(tmp_path, source)
        made.start()
        visit(made)
        await until(lambda: source.on == [True, False], "the loop keeps nothing more for it")
        assert not made.active
        made.end()
        made.stop()

    with caplog.at_level(logging.INFO, "skylb.recording"):
        asyncio.run(test())
    (record,) = caplog.records
    assert record.getMessage().endswith("stops: a fault; requests are served as before")
    assert record.exc_info is not None
    assert "planted" in str(record.exc_info[1])
    assert [path.suffix for path in tmp_path.glob("arrivals-*")] == [".gz"], "its file is closed and packed"


def test_where_the_fleet_cannot_be_described_requests_are_recorded_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording_module, "scenario", failing(2))
    threads: list[threading.Thread] = []

    async def test() -> None:
        made = a_recording(tmp_path, Source())
        made.start()
        assert made._thread is not None
        threads.append(made._thread)
        for _ in range(2):
            made._state = STATE
            visit(made)
            await until(lambda: made._state is None, "it was looked at")
        assert made.active
        made.end()
        made.stop()
        assert made.dropped == 0

    with caplog.at_level(logging.INFO, "skylb.recording"):
        asyncio.run(test())
    (record,) = caplog.records
    assert "is not renewed: planted; requests are still recorded" in record.getMessage()
    assert record.exc_info
    assert (tmp_path / NAME).read_text().startswith("described")
    assert not threads[0].is_alive()


def test_two_recordings_in_one_directory_do_not_take_each_others_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[str] = []
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path.name.startswith("."):
            parts.append(path.name)
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)

    async def test() -> None:
        both = [a_recording(tmp_path, Source()) for _ in range(2)]
        for made in both:
            made.start()
        for made in both:
            made.end()
            made.stop()

    asyncio.run(test())
    assert len(set(parts)) == 2


def test_a_description_that_was_not_finished_is_removed_later(tmp_path: Path) -> None:
    old, young = (tmp_path / f".{NAME}.{name}.part" for name in ("aa", "bb"))
    old.write_text("")
    os.utime(old, (0, 0))
    young.write_text("")
    once(tmp_path)
    assert not old.exists()
    assert young.exists(), "it may be another balancer's"


def test_a_description_that_somebody_has_changed_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    once(tmp_path)
    path = tmp_path / NAME
    written = path.read_text()
    path.write_text(written.replace("count = 1", "count = 7"))
    changed = path.read_text()
    assert changed != written
    once(tmp_path)
    assert path.read_text() == changed
    path.write_text("x = 1\n")
    once(tmp_path)
    assert path.read_text() == "x = 1\n"
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"{path} was changed, or is not SkyLB's: it is kept, and no longer renewed"] * 2
    path.unlink()
    once(tmp_path)
    assert path.read_text() == written


def test_nobody_else_may_read_any_file(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        once(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert len(modes) == 2
    assert set(modes.values()) == {"0o640"}, modes


def test_a_start_that_fails_leaves_no_file(tmp_path: Path) -> None:
    a_recording(tmp_path, Source()).discard()
    later = a_recording(tmp_path, Source())
    later.end()
    later.stop()
    assert not list(tmp_path.iterdir())
