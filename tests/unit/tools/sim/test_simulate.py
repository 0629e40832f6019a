"""Runs, partial runs, many runs."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skylb import _core
from skylb.config import EngineSettings
from skylb.errors import ConfigError
from skylb.tools import sim
from skylb.tools.load.workload import WorkloadError
from skylb.tools.mock.profiles import PROFILES
from skylb.tools.sim.pool import run_all
from skylb.tools.sim.requests import requests
from skylb.tools.sim.scenario import Scenario

SMALL: dict[str, Any] = {
    "duration_s": 20.0,
    "regions": [{"name": "us", "replicas": [{"count": 2}]}],
    "clients": {"users": {"us": 6}},
    "workload": {"kind": "tree"},
}


def scenario(**changes: Any) -> Scenario:
    return msgspec.convert(SMALL | changes, type=Scenario)


def test_a_run_answers_requests_and_loses_none() -> None:
    result = sim.run(scenario())
    assert result.done
    assert result.total.completed > 20
    assert result.total.lost == 0
    assert result.total.ttft_s.p50 is not None
    assert len(result.series.held) >= 20


def test_the_same_seed_gives_the_same_result() -> None:
    assert sim.run(scenario(seed=3)) == sim.run(scenario(seed=3))
    assert sim.run(scenario(seed=3)) != sim.run(scenario(seed=4))


def test_a_run_that_is_stopped_reports_what_there_is() -> None:
    result = sim.run(scenario(), lambda share: share < 0.3)
    assert not result.done
    assert 0 < result.now_s < 20
    assert result.total.requests > 0


@pytest.fixture
def heeded() -> Iterator[None]:
    """Ctrl-C as a terminal's process has it: whoever runs the tests in the background may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_ctrl_c_ends_a_run_with_what_there_is() -> None:
    def interrupt(share: float) -> bool:
        if share > 0.3:
            signal.raise_signal(signal.SIGINT)
        return True

    assert not sim.run(scenario(), interrupt).done


def test_ctrl_c_ends_many_runs_with_what_there_is() -> None:
    pressed: list[bool] = []

    def interrupt(shares: Any) -> None:
        if shares[1] > 0.3 and not pressed:
            pressed.append(True)
            signal.raise_signal(signal.SIGINT)

    runs = run_all([scenario(seed=seed) for seed in range(3)], show=interrupt)
    assert runs.interrupted
    assert [result and result.done for result in runs.results] == [True, False, None]


def test_processes_change_nothing() -> None:
    scenarios = [scenario(seed=seed) for seed in range(3)]
    assert run_all(scenarios, processes=2).results == run_all(scenarios).results


def test_a_broken_process_is_an_error() -> None:
    broken = scenario(workload={"kind": "file", "path": "/nonexistent"})
    with pytest.raises(WorkloadError, match="cannot be read"):
        run_all([broken, broken], processes=2)


def test_points_of_a_sweep_are_paired_by_seed() -> None:
    first, second = sim.sweep(scenario(), {"engine.policy": ["prefix", "round_robin"]}, seeds=3)
    assert [run.seed for run in first.runs] == [run.seed for run in second.runs] == [0, 1, 2]
    assert [run.policy for run in second.runs] == ["round_robin"] * 3
    assert first.baseline is None
    assert first.against_baseline == {}
    assert second.against_baseline["hit_rate"].mean < 0


def test_python_and_rust_have_the_same_defaults() -> None:
    made = requests(scenario())
    profile = msgspec.Raw(PROFILES["l4-8b"].model_json())
    least = {
        "duration_s": 20.0,
        "engine": EngineSettings().model_dump(),
        "regions": [{"name": "us", "replicas": [{"count": 2, "profile": profile}]}],
        "clients": {"mode": "closed", "users": {"us": 6}, "repeat": True},
        "network": {"jitter_ms": 3, "loss": 0.05},
    }
    least_one = _core.Simulator(msgspec.json.encode(least), made.data)
    full = scenario(network={"jitter_ms": 3, "loss": 0.05})
    full_one = _core.Simulator(full.to_json(), made.data)
    for one in (least_one, full_one):
        one.advance(1e9)
    assert least_one.result() == full_one.result()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"clients": {"users": {}}}, "clients.users: no region sends anything"),
        ({"clients": {"users": {"eu": 3}}}, "clients.users"),
        ({"regions": [{"name": "us"}]}, "regions: expected 1 to"),
        ({"warmup_s": 30}, "warmup_s: must be below duration_s"),
        (
            {"faults": [{"kind": "crash", "replica": 9, "at_s": 1}]},
            "faults[0].replica: there is no replica 9",
        ),
        ({"workload": {"kind": "tree", "shares": {"eu": 1}}}, "workload.shares: there is no region eu"),
    ],
)
def test_what_is_impossible_is_refused_before_anything_runs(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as error:
        sim.run(scenario(**changes))
    assert error.value.faults[0].startswith(fault)


def test_a_file_with_other_regions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_text('{"id":1,"region":"eu","user":1,"session":1,"in":9,"out":3,"block":16,"runs":[]}\n')
    kind = {"kind": "file", "path": str(path)}
    with pytest.raises(ConfigError, match="requests of region eu"):
        sim.run(scenario(workload=kind))
    assert sim.run(scenario(workload=kind | {"region": "us"})).total.completed > 0
