"""Runs where a wheel is installed, and needs nothing else: simulates, and loads the whole service.

Prints one line of JSON; ends with an error if something does not work.
"""

import contextlib
import io
import json
import platform

import msgspec

from skylb import _core, cli
from skylb.tools import sim
from skylb.tools.sim.examples import path_of


def main() -> None:
    """Uses the core, the scenarios that come with the package, and the command."""
    scenario = msgspec.structs.replace(sim.read(path_of("chat")), duration_s=10.0, warmup_s=1.0)
    result = sim.run(scenario)
    if not result.total.completed:
        raise RuntimeError("no simulated request was answered")
    with contextlib.redirect_stdout(io.StringIO()):
        status = cli.main(["config", "check", "--replica", "http://127.0.0.1:1"])
    if status:
        raise RuntimeError(f"skylb config check: status {status}")
    found = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "version": _core.__version__,
        "simulated": result.total.completed,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
