"""Spans on their way through rotel: it reads, batches and writes them anew for the test's receiver."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.otlp import Receiver, receiver
from tests.support.processes import Child, balancer, eventually, free_port
from tests.support.recorder import recording
from tests.support.tracing import arrived, forwarded_is_one_trace, one, send


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextmanager
def rotel(behind: Receiver, scratch: Path) -> Iterator[str]:
    """The collector, which posts what it takes to `behind`; its URL."""
    port, grpc = free_port(), free_port()
    command = [os.environ["ROTEL"], "start", "--pid-file", str(scratch / "pid")]
    command += ["--log-file", str(scratch / "log"), "--otlp-http-endpoint", f"127.0.0.1:{port}"]
    command += ["--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--exporter", "otlp"]
    command += ["--otlp-exporter-endpoint", behind.url, "--otlp-exporter-protocol", "http"]
    child = Child(command)
    try:
        child.require(lambda: listens(port), what="rotel")
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stop()


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def test_a_forwarded_request_is_one_trace(collector: Receiver, tmp_path: Path) -> None:
    with rotel(collector, tmp_path) as endpoint:
        forwarded_is_one_trace(collector, endpoint)


def test_an_attempt_that_failed_has_its_error(collector: Receiver, tmp_path: Path) -> None:
    with rotel(collector, tmp_path) as endpoint, recording("m") as replica:
        replica.status = 500
        with balancer(replica.url, arguments=["--otlp-endpoint", endpoint]) as front:
            assert send(front.port).status == 500
            spans = arrived(collector, "request", "attempt")
            assert one(spans, "request").failed
            eventually(lambda: front.metric("skylb_spans_exported_total") >= 2, what="spans that are taken")
            assert front.metric("skylb_spans_dropped_total") == 0
