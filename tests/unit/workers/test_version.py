"""A process that a supervisor of another version starts."""

import asyncio
import socket
import subprocess
import sys

import pytest

from skylb.output import EXIT_FAILURE, EXIT_VERSION
from skylb.workers import children, supervisor


def test_a_process_of_another_version_ends_before_it_reads_anything() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = [sys.executable, "-m", "skylb.workers", str(theirs.fileno())]
        for version in ([], ["0.0.0"]):
            found = subprocess.run(
                [*command, *version], pass_fds=[theirs.fileno()], capture_output=True, timeout=60, check=False
            )
            assert (found.returncode, found.stdout, found.stderr) == (EXIT_VERSION, b"", b"")


@pytest.mark.parametrize(("version", "status"), [("0.0.0", EXIT_VERSION), ("", EXIT_FAILURE)])
def test_the_supervisor_says_what_to_do(monkeypatch: pytest.MonkeyPatch, version: str, status: int) -> None:
    if version:
        monkeypatch.setattr(children, "__version__", version)

    async def run() -> int:
        child = await children.spawn(lambda *_: None)
        if not version:
            child._channel.shutdown(socket.SHUT_RDWR)  # as where the supervisor is gone
        async with asyncio.timeout(60):
            return await child.wait()

    assert asyncio.run(run()) == status
    assert ("hand over" in supervisor._said(status)) == (status == EXIT_VERSION)
