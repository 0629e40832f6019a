"""The logs: written by a thread, bounded, counted when lost."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skylb._core import LOG_JSON, LOG_LOGFMT, LOG_OFF, Recorder, Sender
from skylb.accesslog import JsonFormatter, LineHandler, Logs, LogWriter, TextFormatter

OFFSET_NS = 1_767_225_600_000_000_000
CLIENT = Sender("127.0.0.1:1", "http", False, False)


@pytest.fixture(autouse=True)
def _levels() -> Iterator[None]:
    loggers = [logging.getLogger(), logging.getLogger("skylb")]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


FULL_DISK = """
import json, resource, sys
from pathlib import Path
from skylb.accesslog import LogWriter
def lines(*numbers):
    return b"".join(json.dumps({"n": n, "pad": "x" * (100 - len(str(n)))}).encode() + b"\\n" for n in numbers)
path = Path(sys.argv[1])
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (len(lines(0)) * 9 + 40, hard))
writer = LogWriter([], path)
writer._write(lines(*range(20)))
writer._write(lines(*range(20, 40)))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
writer._write(lines(100, 101))
print(writer.dropped)
"""


def recorder(log_format: int = LOG_LOGFMT, log_bytes_max: int = 1 << 20) -> Recorder:
    return Recorder(log_format, log_bytes_max, "prefix", OFFSET_NS)


def queue(*batches: bytes) -> Callable[[], bytes]:
    """A source that gives one batch per visit."""
    waiting = list(batches)
    return lambda: waiting.pop(0) if waiting else b""


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    return logging.LogRecord("skylb.x", logging.INFO, __file__, 1, message, args, info)


class TestWriter:
    def test_what_waits_at_the_stop_is_written_in_order(self, tmp_path: Path) -> None:
        writer = LogWriter([queue(b"a\nb\n"), queue(b"c\n")], tmp_path / "log")
        writer.start()
        writer.stop()
        assert (tmp_path / "log").read_bytes() == b"a\nb\nc\n"
        assert writer.dropped == 0

    def test_an_existing_file_is_appended_to(self, tmp_path: Path) -> None:
        (tmp_path / "log").write_bytes(b"before\n")
        writer = LogWriter([queue(b"a\n")], tmp_path / "log")
        writer.start()
        writer.stop()
        assert (tmp_path / "log").read_bytes() == b"before\na\n"

    def test_a_full_disk_leaves_no_torn_line(self, tmp_path: Path) -> None:
        ended = subprocess.run(
            [sys.executable, "-c", FULL_DISK, tmp_path / "log"], check=True, capture_output=True
        )
        lines = (tmp_path / "log").read_text().splitlines()
        assert [json.loads(line)["n"] for line in lines] == [*range(9), 100, 101]
        assert ended.stdout == b"31\n"

    def test_behind_a_torn_line_that_stays_the_next_begins_a_line(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        writer = LogWriter([queue(b"c\n")], path)
        path.write_bytes(b"a\nb")
        with path.open("rb") as unwritable:  # what cannot be shortened, as a pipe cannot
            os.dup2(os.dup(writer._fd), kept := os.dup(writer._fd))
            os.dup2(unwritable.fileno(), writer._fd)
            writer._take_back(1)
            os.dup2(kept, writer._fd)
        writer.start()
        writer.stop()
        assert path.read_bytes() == b"a\nb\nc\n"

    def test_after_a_rotation_lines_go_to_the_new_file(self, tmp_path: Path) -> None:
        writer = LogWriter([queue(b"a\n")], tmp_path / "log")
        (tmp_path / "log").rename(tmp_path / "log.1")
        writer.reopen()
        writer.start()
        writer.stop()
        assert (tmp_path / "log").read_bytes() == b"a\n"
        assert (tmp_path / "log.1").read_bytes() == b""

    def test_a_file_that_cannot_be_reopened_keeps_the_old_one_in_use(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "a").mkdir()
        writer = LogWriter([queue(b"a\n")], tmp_path / "a" / "log")
        (tmp_path / "a").rename(tmp_path / "b")
        writer.reopen()
        writer.start()
        writer.stop()
        assert (tmp_path / "b" / "log").read_bytes() == b"a\n"
        assert "cannot be opened again" in caplog.text

    def test_a_file_that_cannot_be_opened_is_told_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            LogWriter([], tmp_path / "none" / "log")

    def test_a_stalled_pipe_loses_lines_that_are_counted_and_delays_nobody(self) -> None:
        reading, writing = os.pipe()
        source = recorder(log_bytes_max=100_000)
        writer = LogWriter([source.take_log], writing, interval_s=0.001)
        writer.start()
        for number in range(5000):  # a megabyte: pipe, writer and queue together hold less
            source.refused(400, f"code_{number}", CLIENT, "", None, number)
        writer.stop(timeout_s=0.05)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            lines = pipe.read().splitlines(keepends=True)
        assert 0 < len(lines) < 5000
        assert len(lines) + writer.dropped + source.log_dropped == 5000
        assert all(line.startswith(b"ts=") and line.endswith(b"bytes_out=0\n") for line in lines)
        assert sum(count for _, count in source.requests()[1]) == 5000

    def test_a_pipe_that_is_read_gets_every_line(self) -> None:
        reading, writing = os.pipe()
        batch = b"".join(b"%0200d\n" % number for number in range(200))
        long = b"x" * 10_000 + b"\n"
        writer = LogWriter([queue(batch, long)], writing, interval_s=0.001)
        writer.start()
        with os.fdopen(reading, "rb") as pipe:
            got = pipe.read(len(batch) + len(long))
        writer.stop()
        os.close(writing)
        assert got == batch + long
        assert writer.dropped == 0

    def test_a_pipe_that_nobody_reads_any_more_loses_lines_that_are_counted(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        writer = LogWriter([queue(b"a\nb\n", b"c\n")], writing)
        writer.start()
        writer.stop()
        os.close(writing)
        assert writer.dropped == 2


class TestHandler:
    def test_messages_wait_until_they_are_taken(self) -> None:
        handler = LineHandler()
        handler.handle(record("one %s", 1))
        handler.handle(record("two"))
        assert handler.take() == b"one 1\ntwo\n"
        assert handler.take() == b""

    def test_beyond_the_bound_messages_are_dropped_and_counted(self) -> None:
        handler = LineHandler(bytes_max=10)
        for _ in range(3):
            handler.handle(record("1234"))
        assert (handler.take(), handler.dropped) == (b"1234\n1234\n", 1)
        handler.handle(record("room again"[:4]))
        assert handler.take() == b"room\n"

    def test_a_call_whose_arguments_do_not_fit_is_told_and_raises_nothing(self) -> None:
        handler = LineHandler()
        handler.handle(record("%d", "x"))
        assert handler.take().startswith(b"unreadable log call at ")

    def test_text_that_is_no_unicode_can_be_logged(self) -> None:
        for formatter in (TextFormatter(), JsonFormatter()):
            handler = LineHandler()
            handler.setFormatter(formatter)
            handler.handle(record("a\udce9b"))
            assert b"udce9" in handler.take()


def raised(message: str) -> ValueError:
    """An error with a traceback."""
    try:
        int(message)
    except ValueError as error:
        return error
    raise AssertionError


class TestFormats:
    def test_a_text_message_is_one_line_whatever_it_holds(self) -> None:
        line = TextFormatter().format(record("a\nb\x1b[31m\u00e9"))
        assert line.endswith(" INFO skylb.x: a\\nb\\x1b[31m\u00e9")

    def test_no_line_of_a_traceback_looks_like_a_message(self) -> None:
        error = raised("bad")
        error.add_note("\nts INFO forged")
        text = TextFormatter().format(record("failed", error=error))
        first, *rest = text.splitlines()
        assert first.endswith("failed")
        assert rest
        assert all(line.startswith("    ") for line in rest)

    def test_a_json_message_reads_back(self) -> None:
        line = JsonFormatter().format(record("a\n%s", "b", error=raised('with "quotes"')))
        fields = json.loads(line)
        assert "\n" not in line
        assert (fields["level"], fields["logger"], fields["message"]) == ("info", "skylb.x", "a\nb")
        assert """'with "quotes"'""" in fields["error"]
        assert fields["ts"].endswith("Z")


class TestLogs:
    def test_the_access_log_goes_to_its_file_and_messages_to_stderr(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        source = recorder(LOG_JSON)
        logs = Logs(source, access_log=str(tmp_path / "access"), log_format="json", level="info")
        logs.start()
        source.refused(400, "bad_host", CLIENT, "", None, 5)
        logging.getLogger("skylb.test").info("hello")
        logging.getLogger("skylb.test").debug("too fine")
        logs.stop()
        assert json.loads((tmp_path / "access").read_text())["error_code"] == "bad_host"
        assert json.loads(capfd.readouterr().err)["message"] == "hello"
        assert logs.dropped == 0

    def test_both_can_share_stderr(self, capfd: pytest.CaptureFixture[str]) -> None:
        source = recorder(LOG_LOGFMT)
        logs = Logs(source, access_log="stderr", log_format="text", level="warning")
        logs.start()
        source.refused(400, "bad_host", CLIENT, "", None, 5)
        logging.getLogger("skylb.test").warning("careful")
        logs.stop()
        error = capfd.readouterr().err
        assert "error_code=bad_host" in error
        assert "WARNING skylb.test: careful" in error

    def test_switched_off_there_are_messages_only(self, capfd: pytest.CaptureFixture[str]) -> None:
        logs = Logs(recorder(LOG_OFF), access_log="off", log_format="text", level="debug")
        logs.start()
        logging.getLogger("skylb.test").debug("fine")
        logs.stop()
        assert capfd.readouterr().err.count("\n") == 1

    def test_lines_lost_anywhere_are_counted_together(self, capfd: pytest.CaptureFixture[str]) -> None:
        source = recorder(LOG_LOGFMT, log_bytes_max=10)
        logs = Logs(source, access_log="stderr", log_format="text", level="info")
        source.refused(400, "bad_host", CLIENT, "", None, 5)
        assert logs.dropped == source.log_dropped == 1

    def test_an_unknown_level_is_refused(self) -> None:
        logs = Logs(recorder(), access_log="off", log_format="text", level="info")
        with pytest.raises(ValueError, match="LOUD"):
            logs.set_level("loud")

    def test_the_root_logger_is_let_go_of(self) -> None:
        before = list(logging.getLogger().handlers)
        logs = Logs(recorder(), access_log="off", log_format="text", level="info")
        logs.start()
        logs.stop()
        assert logging.getLogger().handlers == before
