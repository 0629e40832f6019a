"""``skylb trace mooncake``: a workload in Mooncake's format."""

import gzip
from contextlib import closing
from pathlib import Path
from typing import Annotated

from pydantic import Field

from skylb.config import Group, Placeholder
from skylb.errors import SkyLBError
from skylb.settings.values import Expected
from skylb.tools.load import mooncake
from skylb.tools.load.workload import read_workload


class MooncakeSettings(Group):
    """What to convert."""

    workload: Annotated[
        Path,
        Expected("the path of a file, or of a directory of recordings"),
        Placeholder("FILE"),
        Field(
            description="Workload to read: a directory of recordings, or a file of requests. The path alone "
            "is enough, without the flag.",
        ),
    ]
    output: Annotated[
        Path,
        Expected("the path of a file to write"),
        Placeholder("FILE"),
        Field(description="File to write. It is packed if its name ends in .gz."),
    ]
    skip_bad: Annotated[bool, Field(description="Leave out and count broken lines instead of stopping.")] = (
        False
    )


def to_mooncake(settings: MooncakeSettings) -> str:
    """Writes the file, and says what is in it.

    Raises:
        SkyLBError: the workload cannot be read, or the file cannot be written.
    """
    workload = read_workload(settings.workload, skip_bad=settings.skip_bad)
    path = settings.output
    try:
        with closing(gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb")) as file:
            for line in mooncake.write_lines(workload.turns):
                file.write(line)
    except OSError as error:
        raise SkyLBError(f"output: {path}: cannot be written: {error.strerror}") from error
    left_out = f"; {workload.lines_bad} broken lines left out" if workload.lines_bad else ""
    return f"{path}: {len(workload.turns)} requests, blocks of {mooncake.BLOCK_TOKENS} tokens{left_out}"
