"""The scenario beside a recording."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from skylb.errors import ConfigError
from skylb.recording.fleet import NAME, Balancer, scenario
from skylb.recording.recording import check
from skylb.tools.sim.read import read
from skylb.tools.sim.settings import SCENARIO, SimSettings

BALANCER = Balancer("eu-1", {"policy": "prefix", "ramp_s": 2.0, "class_from_body": True}, 16)
REPLICA: dict[str, Any] = {
    "name": "http://a", "ready": True, "capacity_blocks": 25_000,
    "speed": [[0.0, 52e6, 25_000.0], [10.0, 90e6, 26_000.0]],
}  # fmt: skip


def made(*replicas: dict[str, Any]) -> str:
    return scenario(BALANCER, msgspec.json.encode({"replicas": replicas, "more": 1}), 61.4)


def test_it_describes_balancer_and_replicas_by_kind() -> None:
    about = REPLICA | {"speed": [[0.0, 60e6, 25_000.0], [10.0, 90e6, 26_000.0]]}
    slow = REPLICA | {"speed": [[0.0, 200e6, 90_000.0]]}
    removed = REPLICA | {"removed": True}
    tree = tomllib.loads(made(REPLICA, slow, about, REPLICA, removed))
    assert tree["duration_s"] == 61
    assert tree["engine"] == BALANCER.engine
    (region,) = tree["regions"]
    assert region["name"] == "eu-1"
    assert [group["count"] for group in region["replicas"]] == [3, 1]
    assert region["replicas"][0]["override"] == {
        "kv_tokens": 400_000,
        "max_model_len": 400_000,
        "step_base_us": 52_000,
        "prefill_token_us": 25,
        "decode_seq_us": 800,
    }


def test_the_policy_is_the_one_that_places_requests_now() -> None:
    state = msgspec.json.encode({"replicas": [], "policy": "ring"})
    assert tomllib.loads(scenario(BALANCER, state, 5.0))["engine"] == BALANCER.engine | {"policy": "ring"}


@pytest.mark.parametrize(
    "replicas",
    [(), (REPLICA,), ({"name": "x"},), (REPLICA | {"capacity_blocks": 3, "speed": [[4.0, 1e5, 1.0]]},)],
)
def test_the_simulator_takes_it(tmp_path: Path, replicas: tuple[dict[str, Any], ...]) -> None:
    (tmp_path / NAME).write_text(made(*replicas))
    found = read(tmp_path / NAME)
    assert found.workload.path == str(tmp_path)  # type: ignore[union-attr]  # it is of kind file


def test_a_directory_of_recordings_stands_for_its_scenario(tmp_path: Path) -> None:
    assert NAME == SCENARIO
    (tmp_path / NAME).write_text(made(REPLICA))
    assert SimSettings(scenario=str(tmp_path)).scenario == tmp_path / NAME  # type: ignore[arg-type]  # a text, as from the command line


def test_a_directory_that_cannot_be_used_is_named_before_the_start(tmp_path: Path) -> None:
    check(None)
    check(tmp_path / "new" / "one")
    assert not (tmp_path / "new").exists()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match=r"record: .*file: it is no directory: expected a directory"):
        check(file)
