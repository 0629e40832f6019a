"""How a command ends: exit statuses, faults on stderr, and an output that cannot be written."""

import os
import sys
from collections.abc import Sequence

EXIT_FAILURE = 1
EXIT_CONFIG = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
"""What a shell shows for a process that SIGPIPE ended."""


def drop_output() -> None:
    """What is still buffered goes nowhere: the interpreter would try again at its end, with a traceback."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def print_faults(where: str, faults: Sequence[str]) -> None:
    """Names every fault on stderr, one a line."""
    print(f"skylb: {len(faults)} fault{'s' * (len(faults) > 1)} {where}:", file=sys.stderr)
    for fault in faults:
        print(f"  {fault}", file=sys.stderr)
