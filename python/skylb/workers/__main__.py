"""What the supervisor starts, ``python -m skylb.workers DESCRIPTOR VERSION``: it waits for its `Boot`."""

import asyncio
import signal
import sys

import uvloop

from skylb._core import __version__
from skylb.errors import ConfigError, SkyLBError
from skylb.output import EXIT_CONFIG, EXIT_FAILURE, EXIT_VERSION, print_faults, tell_crashes_in_json
from skylb.workers import engine, worker
from skylb.workers.child import SUPERVISORS, Channel


def main() -> int:
    """Becomes a worker or the engine process; the exit status."""
    for number in SUPERVISORS:
        signal.signal(number, signal.SIG_IGN)
    if sys.argv[2:] != [__version__]:
        return EXIT_VERSION  # the supervisor has the words: it knows the form of the log
    channel = Channel(int(sys.argv[1]))
    try:
        boot, descriptors = channel.boot()
    except (EOFError, OSError):
        return EXIT_FAILURE  # the supervisor ended before this process was needed
    json = boot.settings.log_format == "json"
    if json:
        tell_crashes_in_json()
    run = worker.run if boot.worker else engine.run
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(channel, boot, descriptors))
    except ConfigError as error:
        print_faults("in the configuration", error.faults, json=json)
        return EXIT_CONFIG
    except SkyLBError as error:
        print(f"skylb: {error}", file=sys.stderr)
        return EXIT_FAILURE
    return 0


if __name__ == "__main__":
    sys.exit(main())
