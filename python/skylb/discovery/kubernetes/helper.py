"""The credential helper that a kubeconfig names (``exec``), with bounds on its time and its output.

The client library runs a helper without either, and leaves it behind where it is given up. It also lets the
helper read this process's standard input: one that asks for a password would wait for ever.
"""

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

from skylb.errors import SkyLBError

HELPER_S = 20.0
"""For one run. A cloud's helper takes a second or two; kubectl has no limit."""

ANSWER_BYTES_MAX = 1 << 20
"""A token, or a certificate and its key."""

COMPLAINT_BYTES_MAX = 16 << 10
"""Of what it writes to standard error."""


class HelperError(SkyLBError):
    """The helper failed, did not answer in time, or answered something else. It may do better later."""


class NoHelperError(HelperError):
    """The helper cannot be started."""


async def ask(arguments: Sequence[str], environment: Mapping[str, str], api_version: str) -> bytes:
    """What a helper answers: an ``ExecCredential`` in JSON.

    Args:
        arguments: the command.
        environment: of the command; `KUBERNETES_EXEC_INFO` is added.
        api_version: the version of the answer that is expected.

    Raises:
        HelperError: there is no answer.
        NoHelperError: it cannot be started.
    """
    asked = {"apiVersion": api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
    name = arguments[0]
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            env={**environment, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # what it starts can be ended with it
        )
    except (OSError, ValueError) as error:  # the latter: a zero byte in an argument
        why = getattr(error, "strerror", None) or error
        raise NoHelperError(f"the credential helper {name} cannot be started: {why}") from error
    try:
        async with asyncio.timeout(HELPER_S):
            answer, complaint, status = await asyncio.gather(
                _read(process.stdout, ANSWER_BYTES_MAX),
                _read(process.stderr, COMPLAINT_BYTES_MAX),
                process.wait(),
            )
    except TimeoutError:
        raise HelperError(f"the credential helper {name} does not end in {HELPER_S:g} s") from None
    finally:
        await _end(process)
    if status != 0:
        said = " ".join(complaint.decode(errors="replace").split())
        raise HelperError(f"the credential helper {name} ends with status {status}: {said}")
    if len(answer) > ANSWER_BYTES_MAX:
        raise HelperError(f"the credential helper {name} answers more than {ANSWER_BYTES_MAX} bytes")
    return answer


async def _read(stream: asyncio.StreamReader | None, bytes_max: int) -> bytes:
    """All that it says, to the end; what is over the bound by more than a byte is dropped."""
    kept = bytearray()
    while stream is not None and (chunk := await stream.read(1 << 16)):
        kept += chunk[: bytes_max + 1 - len(kept)]
    return bytes(kept)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends it and all that it started. If it has ended by itself, only its output is let go.

    The number of a process that has ended may be another's by now, and so may that of its group.
    """
    ends = process.returncode is not None or _kill_group(process.pid)
    # What has left the group may hold its pipes: else it would not count as ended.
    transport = process._transport  # type: ignore[attr-defined]  # noqa: SLF001 - no public way, nor a stub, for both
    for descriptor in (1, 2):
        if (pipe := transport.get_pipe_transport(descriptor)) is not None:
            pipe.close()
    with suppress(PermissionError):
        transport.close()  # it kills once more, and that may be allowed for the helper alone
        ends = True
    if ends:
        await process.wait()


def _kill_group(group: int) -> bool:
    """Whether it is gone, or will be soon; a helper that runs as another user may not be killed."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True
