"""One run: a scenario in, a result out."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from skylb import _core
from skylb.errors import ConfigError, SkyLBError
from skylb.tools.sim.requests import Requests, requests
from skylb.tools.sim.result import Result, decode
from skylb.tools.sim.scenario import Scenario

SLICE_S = 0.05
"""Real time between looks at whether to go on, about."""

Watch = Callable[[float], bool]
"""Gets the share of the run that is done, now and then; answers whether to go on."""


class BrokenError(SkyLBError):
    """An invariant of the engine broke; the message names it, the virtual time and the seed."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can begin: scenario and requests have passed all checks."""

    simulator: _core.Simulator
    duration_s: float


def prepare(scenario: Scenario, made: Requests | None = None) -> Prepared:
    """Checks all there is to check.

    Args:
        scenario: what to run.
        made: its requests, where they are there already.

    Raises:
        ConfigError: the scenario is impossible; names the fields.
        WorkloadError: its requests cannot be had.
    """
    json = scenario.to_json()
    made = made or requests(scenario)
    try:
        simulator = _core.Simulator(json, made.data)
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    return Prepared(simulator, scenario.duration_s)


def run(scenario: Scenario, watch: Watch | None = None) -> Result:
    """Runs a scenario to its end.

    Ctrl-C ends it early, as does a ``watch`` that answers false: the result then says ``done = False``
    and covers what there is.

    Raises:
        ConfigError: the scenario is impossible; names the fields.
        WorkloadError: its requests cannot be had.
        BrokenError: an invariant broke (scenarios with ``check``).
    """
    return finish(prepare(scenario), watch)


def finish(prepared: Prepared, watch: Watch | None = None) -> Result:
    """Runs what is prepared to its end; as `run`."""
    return decode(finish_bytes(prepared, watch))


def finish_bytes(prepared: Prepared, watch: Watch | None = None) -> bytes:
    """As `finish`, the result as the simulator's JSON."""
    try:
        _advance(prepared, watch)
    except KeyboardInterrupt:
        pass  # what there is will be reported; `done` says that it is not all
    except AssertionError as error:
        raise BrokenError(str(error)) from error
    return prepared.simulator.result()


def _advance(prepared: Prepared, watch: Watch | None) -> None:
    """Advances in slices of about `SLICE_S` of real time."""
    simulator, slice_s, now_s = prepared.simulator, 1.0, 0.0
    while not simulator.done:
        began = time.perf_counter()
        now_s = simulator.advance(now_s + slice_s)
        took_s = time.perf_counter() - began
        slice_s *= min(2.0, max(0.5, SLICE_S / max(took_s, 1e-6)))
        if watch is not None and not watch(min(1.0, now_s / prepared.duration_s)):
            return
