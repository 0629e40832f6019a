"""Settings through flags, environment and file, as `skylb serve` and `skylb config` load them."""

import argparse
import json
import tomllib
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from skylb.config import Group, Settings, environment
from skylb.configview import show, table
from skylb.errors import ConfigError
from skylb.helptext import add_flags
from skylb.options import Loaded, load, options, value_of

REPLICA = {"replica": ["http://127.0.0.1:8101"]}


def faults_of(flags: dict[str, list[str]] | None = None, **sources: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(Settings, flags=flags or {}, **sources)  # type: ignore[arg-type]  # the sources of each test
    return caught.value.faults


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "skylb.toml"
    path.write_text(text)
    return path


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    file = toml(tmp_path, 'hold_len_max = 1\npolicy = "ring"\nlog_level = "error"\nreplica = ["http://a"]\n')
    loaded = load(
        Settings,
        flags={"policy": ["least_load"]},
        variables={"SKYLB_POLICY": "two_choices", "SKYLB_LOG_LEVEL": "debug"},
        file=file,
    )
    settings = loaded.settings
    assert (settings.engine.policy, settings.log_level, settings.engine.hold_len_max) == (
        "least_load",
        "debug",
        1,
    )
    kinds = {name: given.kind for name, given in loaded.origins.items()}
    assert kinds == {"policy": "flag", "log_level": "environment", "hold_len_max": "file", "replica": "file"}


def test_names_of_flags_and_variables_are_unique() -> None:
    everything = options(Settings)
    assert len({option.flag for option in everything}) == len(everything)
    assert len({option.variable for option in everything}) == len(everything)


def test_every_option_explains_itself() -> None:
    for option in options(Settings):
        assert option.description, option.name
        assert option.expected, option.name


def test_a_list_comes_from_repeated_flags_a_comma_list_or_an_array(tmp_path: Path) -> None:
    by_flags = load(Settings, flags={"replica": ["http://a", "http://b"]}).settings.replica
    by_variable = load(Settings, flags={}, variables={"SKYLB_REPLICA": "http://a, http://b"}).settings.replica
    by_file = load(
        Settings, flags={}, file=toml(tmp_path, 'replica = ["http://a", "http://b"]')
    ).settings.replica
    assert by_flags == by_variable == by_file
    assert [str(url) for url in by_flags] == ["http://a:80", "http://b:80"]


def test_sizes_may_be_written_with_a_unit() -> None:
    settings = load(Settings, flags=REPLICA | {"body_bytes_max": ["20 MiB"]}).settings
    assert settings.body_bytes_max == 20 << 20


def test_all_faults_of_all_sources_are_told_at_once(tmp_path: Path) -> None:
    file = toml(tmp_path, "hold_len = 5\n[engine]\nblock_bytes = 3\n[egine]\nx = 1\n")
    faults = faults_of(
        {"listen": ["here"], "policy": ["best"]},
        variables={"SKYLB_POLCY": "ring", "SKYLB_DRAIN_TIMEOUT_S": "nan"},
        file=file,
        faults=["--foo: unknown flag"],
    )
    text = "\n".join(faults)
    assert len(faults) == 9
    assert "--foo: unknown flag" in text
    assert f"{file}:1: hold_len: unknown key; did you mean hold_len_max?" in text
    assert f"{file}:4: egine: unknown key; did you mean engine?" in text
    assert "SKYLB_POLCY: unknown variable; did you mean SKYLB_POLICY?" in text
    assert f"{file}:3: engine.block_bytes: 3: expected an integer at least 16 and at most 4096" in text
    assert (
        "--listen: 'here': expected HOST:PORT, [IPV6]:PORT or unix:PATH (the port or the host is missing)"
        in text
    )
    assert "--policy: 'best': expected one of prefix, predictive, ring," in text
    assert "SKYLB_DRAIN_TIMEOUT_S: 'nan': expected a number" in text
    assert "no replicas: expected --replica URL" in text


def test_a_setting_written_with_its_group_is_corrected(tmp_path: Path) -> None:
    file = toml(tmp_path, '[engine]\npolicy = "ring"\n')
    assert faults_of(REPLICA, file=file) == [f"{file}:2: engine.policy: unknown key; did you mean policy?"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = ", "expected TOML"),
        ("engine = 5", "engine: 5: expected a table"),
        ("hold_len_max = true", "hold_len_max: True: expected an integer"),
        ("hold_timeout_s = inf", "hold_timeout_s: inf: expected a number above 0"),
        ("hold_len_max = 1.5", "hold_len_max: 1.5: expected an integer"),
        ("listen = []", "listen: []: expected HOST:PORT"),
    ],
)
def test_a_broken_file_is_a_fault(text: str, fault: str, tmp_path: Path) -> None:
    assert any(fault in found for found in faults_of(REPLICA, file=toml(tmp_path, text)))


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    assert faults_of(REPLICA, file=tmp_path / "none.toml") == [
        f"{tmp_path / 'none.toml'}: cannot be read: No such file or directory"
    ]
    assert "there is no such file" in faults_of(REPLICA | {"admin_token_file": [str(tmp_path / "x")]})[0]


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ({"listen": ["a:80", "a:80"]}, "listen: a:80 is given twice"),
        ({"listen": ["0.0.0.0:8081"]}, "admin: 127.0.0.1:8081 is also in listen"),
        ({"replica": ["http://a", "http://A:80/"]}, "replica: http://a:80 is given twice"),
        (
            {"replica": ["http://localhost:8080"], "listen": ["0.0.0.0:8080"]},
            "http://localhost:8080 is SkyLB itself",
        ),
        ({"replica": ["unix:/a"], "listen": ["unix:/a"]}, "unix:/a is SkyLB itself"),
        ({"body_bytes_max": ["2GiB"]}, "expected body_bytes_max <= buffer_bytes_max"),
        ({"engine.eject_s": ["60"]}, "expected engine.eject_s <= engine.eject_max_s"),
        ({"tls_cert": [__file__]}, "tls_cert is given without tls_key: expected both or neither"),
        ({"tls_key": [__file__]}, "tls_key is given without tls_cert: expected both or neither"),
        ({"tls_client_ca": [__file__]}, "tls_client_ca is given without tls_cert"),
    ],
)
def test_values_that_are_wrong_together_are_a_fault(flags: dict[str, list[str]], fault: str) -> None:
    assert any(fault in found for found in faults_of(REPLICA | flags))


def test_a_fault_of_a_value_is_not_told_a_second_time_as_a_conflict() -> None:
    faults = faults_of({"replica": ["nonsense"]})
    assert len(faults) == 1
    assert faults[0].startswith("--replica: 'nonsense': expected http://HOST:PORT")


def test_variables_that_kubernetes_makes_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SKYLB_PORT", "SKYLB_PORT_8080_TCP_ADDR", "SKYLB_SERVICE_HOST", "SKYLB_SERVICE_PORT_HTTP"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SKYLB_POLICY", "ring")
    monkeypatch.setenv("SKYLB_SUPORT", "x")
    found = environment()
    assert found["SKYLB_POLICY"] == "ring"
    assert "SKYLB_SUPORT" in found
    assert not any("PORT_" in name or "SERVICE" in name for name in found)


def test_every_setting_can_be_given_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes makes some names that a setting may have, such as that of --kubernetes-port."""
    variables = {option.variable for option in options(Settings)}
    for name in variables:
        monkeypatch.setenv(name, "x")
    assert variables <= environment().keys()


def test_a_service_may_have_the_name_of_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes sets this beside a Service "skylb-kubernetes"."""
    monkeypatch.setenv("SKYLB_KUBERNETES_PORT", "tcp://10.0.0.1:8000")
    assert "SKYLB_KUBERNETES_PORT" not in environment()


@given(st.sampled_from(options(Settings)), st.text(max_size=20))
def test_any_text_for_any_option_is_taken_or_told(option: object, text: str) -> None:
    name = option.name  # type: ignore[attr-defined]  # an Option
    try:
        load(Settings, flags=REPLICA | {name: [text]})
        told = []
    except ConfigError as error:
        told = error.faults
    last = name.rpartition(".")[2].replace("_", "-")
    assert all(last in fault.replace("_", "-") for fault in told)


def test_what_show_prints_loads_again_to_the_same_settings(tmp_path: Path) -> None:
    flags = REPLICA | {
        "trusted_proxies": ["10.0.0.0/8"],
        "key_header": ["x-session"],
        "engine.ring_vnodes": ["4"],
    }
    loaded = load(Settings, flags=flags)
    text = show(loaded)
    tomllib.loads(text)
    again: Loaded[Settings] = load(Settings, flags={}, file=toml(tmp_path, text))
    assert again.settings == loaded.settings


def test_show_tells_where_each_value_came_from(tmp_path: Path) -> None:
    file = toml(tmp_path, "[timeout]\nconnect_s = 3\n")
    text = show(load(Settings, flags=REPLICA, variables={"SKYLB_SEED": "7"}, file=file))
    origins = {
        line.split("  # ")[0].split(" = ")[0].strip(): line.split("  # ")[1]
        for line in text.splitlines()
        if "  # " in line
    }
    assert origins["replica"] == "flag --replica"
    assert origins["seed"] == "environment SKYLB_SEED"
    assert origins["connect_s"] == f"{file}:2: timeout.connect_s"
    assert origins["hold_len_max"] == "default"


def test_a_table_has_a_row_per_option_of_its_group() -> None:
    rows = table(Settings, "timeout").splitlines()[2:]
    assert len(rows) == sum(option.name.startswith("timeout.") for option in options(Settings))
    assert rows[0].startswith("| `--timeout-head-s` | `10` |")


def test_the_engine_gets_every_constant_as_json() -> None:
    settings = load(Settings, flags=REPLICA | {"hold_timeout_s": ["7"]}).settings
    sent = json.loads(settings.engine.model_dump_json())
    named = {
        option.path[1]: value_of(settings, option)
        for option in options(Settings)
        if option.path[0] == "engine"
    }
    assert sent == named
    assert sent["hold_timeout_s"] == 7


class Switched(Group):
    """Settings of another command: a switch, and a value without default."""

    color: Annotated[bool, Field(description="use colours")] = True
    target: Annotated[int, Field(ge=1, description="how many")]


def test_a_switch_has_a_flag_for_each_state() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, Switched, variables=False)
    for words, color in ((["--no-color"], False), (["--no-color", "--color"], True), ([], True)):
        flags = vars(parser.parse_args([*words, "--target", "2"]))
        assert load(Switched, flags=flags).settings == Switched(color=color, target=2)


def test_a_missing_value_without_default_is_a_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        load(Switched, flags={})
    assert caught.value.faults == ["--target: missing: expected an integer at least 1"]


@pytest.mark.parametrize(
    "flags",
    [
        {"otlp.endpoint": ["http://u:secret@127.0.0.1:4318"]},
        {"replica": ["http://u:secret@127.0.0.1:8101"]},
        {"replica": ["ftp://u:secret@a"]},
    ],
)
def test_a_fault_shows_no_credentials_of_a_url(flags: dict[str, list[str]]) -> None:
    (fault,) = faults_of(REPLICA | flags)
    assert "secret" not in fault
    assert "://...@" in fault
