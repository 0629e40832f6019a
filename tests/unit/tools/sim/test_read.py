"""Scenario files, sweeps, and what is wrong with them."""

from pathlib import Path
from typing import Any

import pytest

from skylb.errors import ConfigError
from skylb.tools.sim.read import ScenarioFile, assign, from_tree, read, read_file
from skylb.tools.sim.settings import parse_sweep


def faults_of(tree: dict[str, Any]) -> list[str]:
    faults: list[str] = []
    from_tree(tree, faults)
    return faults


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        ({"enginee": 1}, "enginee: unknown field; did you mean engine?"),
        ({"engine": {"polcy": "ring"}}, "engine.polcy: unknown key; did you mean policy?"),
        ({"engine": {"policy": "best"}}, "engine.policy: 'best': expected one of"),
        ({"seed": "x"}, "seed: expected `int`, got `str`"),
        ({"duration_s": 0}, "duration_s: expected `float` > 0.0"),
        ({"regions": [{"replicas": [{"count": 0}]}]}, "regions.0.replicas.0.count: expected `int` >= 1"),
        ({"regions": [{"replicas": [{"profile": "l5"}]}]}, "regions.0.replicas.0.profile: 'l5': unknown"),
        (
            {"regions": [{"replicas": [{"override": {"kv_token": 1}}]}]},
            "regions.0.replicas.0.override.kv_token: unknown key; did you mean kv_tokens?",
        ),
        (
            {"regions": [{"replicas": [{"override": {"kv_tokens": 1000}}]}]},
            "regions.0.replicas.0: max_model_len is 16384: expected at most the KV room, 992 tokens",
        ),
        ({"workload": {"kind": "tre"}}, "workload.kind: invalid value 'tre'; expected one of arena, "),
        (
            {"workload": {"kind": "tree", "branchs": 1}},
            "workload.branchs: unknown field; did you mean branches?",
        ),
        ({"faults": [{"kind": "crash", "at_s": 1}]}, "faults.0: missing field `replica`"),
    ],
)
def test_a_fault_names_its_field(tree: dict[str, Any], fault: str) -> None:
    found = faults_of(tree)
    assert len(found) == 1
    assert found[0].startswith(fault)


def test_faults_of_several_fields_are_named_together() -> None:
    assert len(faults_of({"seed": -1, "drain_s": "x", "foo": 1, "topology": "ring"})) == 4


def test_a_sweep_multiplies_and_names_its_points() -> None:
    file = ScenarioFile({}, {"engine.policy": ["prefix", "ring"], "clients.users.us": [4, 8]})
    points = file.points()
    assert [point.name for point in points] == [
        "policy=prefix us=4",
        "policy=prefix us=8",
        "policy=ring us=4",
        "policy=ring us=8",
    ]
    assert points[3].scenario.engine == {"policy": "ring"}
    assert points[3].scenario.clients.users == {"us": 8}


def test_each_fault_of_a_sweep_is_named_once_with_the_file() -> None:
    file = ScenarioFile({}, {"engine.policy": ["best", "worst"], "seed": [1, 2]}, name="x.toml")
    with pytest.raises(ConfigError) as error:
        file.points()
    assert [fault[:24] for fault in error.value.faults] == ["x.toml: engine.policy: '"] * 2


def test_a_sweep_cannot_grow_beyond_all_bounds() -> None:
    file = ScenarioFile({}, {f"engine.{number}": list(range(100)) for number in range(3)})
    with pytest.raises(ConfigError, match="1000000 points"):
        file.points()


def test_a_star_assigns_to_all() -> None:
    tree: dict[str, Any] = {"regions": [{"replicas": [{}, {}]}, {"replicas": [{}]}]}
    assert assign(tree, "regions.*.replicas.*.count", 3) is None
    assert tree == {"regions": [{"replicas": [{"count": 3}, {"count": 3}]}, {"replicas": [{"count": 3}]}]}


def test_assigning_into_nothing_is_a_fault() -> None:
    assert assign({"regions": []}, "regions.0.name", "x") == "there is no 0 to go into"
    assert assign({"seed": 1}, "seed.low", 2) == "there is no low to set"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("engine.policy=prefix,ring", ("engine.policy", ["prefix", "ring"])),
        ("seed=1,2", ("seed", [1, 2])),
        ("check=true", ("check", [True])),
        ("network.rtt_ms=[[[0.5]], [[1]]]", ("network.rtt_ms", [[[0.5]], [[1]]])),
    ],
)
def test_a_sweep_on_the_command_line_is_toml_or_text(text: str, expected: tuple[str, list[Any]]) -> None:
    assert parse_sweep(text) == expected


@pytest.mark.parametrize("text", ["engine.policy", "=1", "seed="])
def test_what_is_no_sweep_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected FIELD=VALUE"):
        parse_sweep(text)


def test_a_workload_file_is_found_beside_its_scenario(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('workload = {kind = "file", path = "trace.jsonl"}\n')
    assert getattr(read(file).workload, "path", None) == str(tmp_path / "trace.jsonl")


def test_a_sweep_in_the_file_is_a_table_of_lists(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[sweep]\nengine.policy = ['a']\nseed = 3\n")
    with pytest.raises(ConfigError) as error:
        read_file(file)
    assert len(error.value.faults) == 2
