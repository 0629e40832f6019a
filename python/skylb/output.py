"""How a command ends: exit statuses, faults on stderr, and an output that cannot be written.

A balancer whose log is JSON writes nothing else, from its first byte to its last. Its faults are JSON, and
so is the traceback of a failure that nobody foresaw.
"""

import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

from skylb.config import ENVIRONMENT_PREFIX
from skylb.options import CONFIG_BYTES_MAX, CONFIG_VARIABLE

EXIT_FAILURE = 1
EXIT_CONFIG = 2
EXIT_VERSION = 3
"""Of a process that a supervisor of another version has started."""

EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
"""What a shell shows for a process that SIGPIPE ended."""

_IN_FILE = re.compile(r"""^[ \t]*log_format[ \t]*=[ \t]*["']json["']""", re.MULTILINE)


def drop_output() -> None:
    """What is still buffered goes nowhere: the interpreter would try again at its end, with a traceback."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def print_faults(where: str, faults: Sequence[str], *, json: bool = False) -> None:
    """Names every fault on stderr, one a line."""
    if json:
        from skylb.accesslog import json_line  # loads the core

        lines = [json_line(fault, kind="fault") for fault in faults]
    else:
        heading = f"skylb: {len(faults)} fault{'s' * (len(faults) > 1)} {where}:"
        lines = [heading, *(f"  {fault}" for fault in faults)]
    for line in lines:
        print(line, file=sys.stderr)


def json_asked(words: Sequence[str], variables: Mapping[str, str]) -> bool:
    """Whether a balancer was to log JSON, as far as that can be read from settings that may be at fault."""
    asked = config = None
    for word, following in zip(words, [*words, ""][1:], strict=True):
        flag, equals, value = word.partition("=")
        if flag == "--log-format":
            asked = value if equals else following
        elif flag == "--log-json":
            asked = "json"
        elif flag == "--config":
            config = value if equals else following
    asked = asked or variables.get(ENVIRONMENT_PREFIX + "LOG_FORMAT")
    config = config or variables.get(CONFIG_VARIABLE)
    if asked is None and config is not None:
        return _json_in(Path(config))
    return asked == "json"


def _json_in(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            text = file.read(CONFIG_BYTES_MAX).decode(errors="replace")
    except OSError:
        return False
    return _IN_FILE.search(text) is not None


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del file, line
    logging.getLogger("py.warnings").warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)


def tell_crashes_in_json() -> None:
    """Makes a JSON object of each traceback and warning that the interpreter or a library would print."""
    from skylb.accesslog import JsonFormatter, json_line  # loads the core

    def told(
        kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None, about: str
    ) -> None:
        found = (kind, error or kind(), traceback)
        print(json_line(about, kind="crash", error=found), file=sys.stderr, flush=True)

    sys.excepthook = lambda kind, error, traceback: told(
        kind, error, traceback, f"the process failed: {error!r}"
    )
    threading.excepthook = lambda args: told(
        args.exc_type, args.exc_value, args.exc_traceback, f"a thread failed: {args.exc_value!r}"
    )
    sys.unraisablehook = lambda args: told(
        args.exc_type, args.exc_value, args.exc_traceback, args.err_msg or "an error was ignored"
    )
    warnings.showwarning = _log_warning
    if logging.lastResort is not None:  # what is logged before the log is open, and after it is closed
        logging.lastResort.setFormatter(JsonFormatter())
