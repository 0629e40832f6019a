"""From files to the requests that are simulated."""

from pathlib import Path

import msgspec

from skylb.tools.sim.requests import requests
from skylb.tools.sim.scenario import Clients, Region, Replicas, Scenario
from skylb.tools.sim.workload import File

LINES = (
    '{"id":1,"t":0.0,"region":"us","user":1,"session":1,"in":100,"out":10,"block":8,"runs":[[5,12]]}',
    '{"id":2,"t":1.0,"after":1,"region":"us","user":1,"session":1,"in":130,"out":20,"block":8,"runs":[[5,16]]}',
)


def columns(path: Path, **fields: int) -> dict[str, list[int]]:
    scenario = Scenario(
        regions=[Region(name="us", replicas=[Replicas()])],
        clients=Clients(mode="sessions"),
        workload=File(path=str(path), **fields),
    )
    found: dict[str, list[int]] = msgspec.json.decode(requests(scenario).data)
    return found


def test_a_scale_makes_prompts_longer_and_shares_as_much_of_them(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(LINES))
    plain, scaled = columns(path), columns(path, scale=4)
    assert plain["in"] == [100, 130]
    assert scaled["in"] == [400, 520]
    assert scaled["block"] == [32, 32]
    assert scaled["runs"] == plain["runs"]
    assert scaled["out"] == plain["out"]
    assert columns(path) == plain


def test_sessions_that_are_too_long_after_scaling_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    other = LINES[0].replace('"id":1', '"id":3').replace('"session":1', '"session":2')
    path.write_text("\n".join([*LINES, other]))
    assert columns(path, tokens_max=450)["id"] == [1, 2, 3]
    assert columns(path, tokens_max=450, scale=4)["id"] == [3]
