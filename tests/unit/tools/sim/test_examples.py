"""The scenarios that come with the package: they are listed, explained, and run."""

from pathlib import Path

import pytest

from skylb import cli
from skylb.errors import ConfigError
from skylb.tools.sim import SimSettings, example, run
from skylb.tools.sim.examples import LIST, about, names, path_of
from skylb.tools.sim.read import read_file
from skylb.tools.sim.scenario import Fault, Scenario

ROOT = Path(__file__).resolve().parents[4]
DURATION_S = 12.0


def shortened(scenario: Scenario) -> dict[str, object]:
    """Times by which the scenario takes no longer, with all its faults and its burst in them."""
    factor = DURATION_S / scenario.duration_s
    values: dict[str, object] = {"duration_s": DURATION_S, "warmup_s": 1.0}
    for place, fault in enumerate(scenario.faults):
        values |= {f"faults.{place}.{name}": at_s * factor for name, at_s in times(fault).items()}
    if scenario.workload.burst_s:
        values |= {"workload.burst_at_s": 4.0, "workload.burst_s": 2.0}
    return values


def times(fault: Fault) -> dict[str, float]:
    """When it begins and ends."""
    found = {"at_s": fault.at_s, "until_s": getattr(fault, "until_s", None)}
    return {name: at_s for name, at_s in found.items() if at_s is not None}


@pytest.mark.parametrize("name", names())
def test_every_point_of_an_example_runs(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_text(example(name))
    file = read_file(path)
    scenario = file.with_values({})
    points = file.points()
    for values in (point.values for point in points):
        result = run(file.with_values({**shortened(scenario), **values}))
        assert result.total.completed > 0
        assert result.total.lost == 0
    assert len(points) > 1, "an example compares something"


@pytest.mark.parametrize("name", names())
def test_an_example_says_what_it_shows_and_how_to_run_it(name: str) -> None:
    first, second, command, *_ = example(name).splitlines()
    assert first == f"# {about(name)}"
    assert 20 < len(about(name)) < 80
    assert about(name).endswith(".")
    assert second == "#"
    assert command.startswith(f"#     skylb sim {name}.toml")
    assert example(name).count("#") > 4


def test_the_folder_of_the_repository_is_that_of_the_package() -> None:
    assert sorted(path.stem for path in (ROOT / "examples").glob("*.toml")) == names()
    assert (ROOT / "examples").is_symlink()


@pytest.mark.parametrize("name", names())
def test_the_name_of_an_example_stands_for_its_file(name: str) -> None:
    assert SimSettings.model_validate({"scenario": name}).scenario_path() == path_of(name)


def test_a_file_that_has_the_name_of_an_example_comes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat").write_text(example("chat"))
    assert SimSettings.model_validate({"scenario": "chat"}).scenario_path() == Path("chat")


def test_the_list_has_a_line_for_each_example() -> None:
    lines = example(LIST).splitlines()
    assert [line.split()[0] for line in lines] == names()
    assert all(line.endswith(about(line.split()[0])) for line in lines)


def test_an_unknown_example_is_a_fault_that_lists_all() -> None:
    with pytest.raises(ConfigError) as error:
        example("chatt")
    (fault,) = error.value.faults
    assert fault.startswith("--example: 'chatt': unknown; did you mean chat?: expected one of\n")
    assert all(name in fault for name in names())


@pytest.mark.parametrize(
    ("words", "status", "out", "fault"),
    [
        (["--example", "chat"], 0, example("chat"), ""),
        (["--example=chat"], 0, example("chat"), ""),
        (["--example"], 0, example(LIST), ""),
        (["--example", "nothing"], 2, "", "--example: 'nothing': unknown"),
        (["--example", "chat", "--seeds", "3"], 2, "", "--example: runs nothing: expected without --seeds"),
        (["--example", "--seeds", "3"], 2, "", "--example: runs nothing: expected without --seeds"),
        ([], 2, "", "SCENARIO: missing: expected the path of a file, or --example"),
    ],
)
def test_the_command_writes_examples(
    words: list[str], status: int, out: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sim", *words]) == status
    printed = capsys.readouterr()
    assert printed.out == out
    assert fault in printed.err
