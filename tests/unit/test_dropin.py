"""Command lines of other routers: what each flag becomes."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from skylb.cli import main
from skylb.config import Settings
from skylb.dropin.row import PROGRAMS, Values
from skylb.dropin.shared import POLICIES
from skylb.dropin.stack import ROUTING
from skylb.dropin.translate import ROWS, Translation, translate
from skylb.options import options

RECORDED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "routers.json").read_text()
)
"""What the programs' own parsers take; see ``tests/support/routers.py``."""

LETTERS = {program.name: program.letter for program in PROGRAMS} | {"smg serve": "s"}

OWN = {option.flag for option in options(Settings)}

DOCUMENTED = frozenset(
    {
        *("--api-key-validation-urls", "--otel-excluded-paths", "--otel-sampling-ratio", "--profile"),
        *("--runtime", "--eviction-interval", "--backend", "--history-backend", "--enable-trace"),
        "--otlp-traces-endpoint",
    }
)
"""Of the Rust programs that vllm-router and smg also come as: only their documents name them."""

NO_SETTING = frozenset({"--config"})
"""Flags that answers name and that are not settings."""

SAMPLES = {Values.NONE: [], Values.ONE: ["7"], Values.MANY: ["7", "8"]}

EVERY = [(name, flag, kind) for name, page in RECORDED.items() for flag, kind in page["flags"].items()]


def ours(line: str, **named: Any) -> Translation:
    """A command line without its command, as it becomes one of ours."""
    return translate(shlex.split(line), OWN, **named)


@pytest.mark.parametrize(("program", "flag", "kind"), EVERY, ids=str)
def test_every_flag_of_every_program_becomes_something_or_is_answered(
    program: str, flag: str, kind: str
) -> None:
    del program
    made = translate([flag, *SAMPLES[Values(kind)], "--hold-len-max", "3"], OWN)
    assert "--hold-len-max 3" in " ".join(made.words)
    if flag in OWN:
        assert made.words[:2] == [flag, "7"], (
            "the value is none of theirs: ours is to say what is wrong with it"
        )
        return
    assert flag not in made.words
    heard = [written for written, _ in made.said] + made.faults
    assert any(flag in text for text in heard), "it was left out in silence"


def test_the_table_has_the_flags_of_the_recorded_programs_and_no_others() -> None:
    for name, page in RECORDED.items():
        recorded = {flag: Values(kind) for flag, kind in page["flags"].items()}
        if name == "smg serve":  # its router's flags have a prefix, and the others the table has besides
            recorded = {flag: kind for flag, kind in recorded.items() if "router-" not in flag}
        table = {row.flag: row.values for row in ROWS if LETTERS[name] in row.programs}
        assert recorded.items() <= table.items()
        if name != "smg":  # smg is in the table with the flags of `smg serve`
            known = recorded.keys() | RECORDED["smg" if name == "smg serve" else name]["flags"].keys()
            assert table.keys() - known <= DOCUMENTED | {"--router-disable-arg-fallback"}


def test_what_is_said_to_be_used_instead_is_there() -> None:
    named = {flag for row in ROWS for flag in row.own}
    assert named <= OWN | NO_SETTING


def test_a_flag_is_answered_by_one_row_per_kind_of_value() -> None:
    seen = [(row.flag, program, row.values) for row in ROWS for program in row.programs]
    assert len(seen) == len(set(seen))


def test_a_flag_that_programs_read_differently_has_an_answer_that_is_safe_in_all() -> None:
    kinds: dict[tuple[str, Values], list[str]] = {}
    for row in ROWS:
        kinds.setdefault((row.flag, row.values), []).append(row.programs)
    several = {flag: programs for (flag, _), programs in kinds.items() if len(programs) > 1}
    assert several == {"--api-key": ["v", "sg", ""]}


@pytest.mark.parametrize(
    ("line", "launched", "guarded"),
    [
        ("--worker-urls http://a:1 --port 1 --api-key S3", True, True),
        ("--api-key S3 --kv-event-model m", True, True),
        ("--worker-urls http://a:1 --api-key S3 --model-path m", True, True),
        ("--worker-urls http://a:1 --api-key S3 --model-path m", False, True),
        ("--worker-urls http://a:1 --api-key S3", False, True),
        ("--api-key=S3", False, True),
        ("--worker-urls http://a:1 --router-api-key S3", False, True),
        ("--worker-urls http://a:1 --api-key S3 --log-json --kv-event-model m --profile", False, True),
        ("--worker-urls http://a:1 --api-key S3 --kv-event-model m", False, False),
    ],
)
def test_the_answer_to_a_key_opens_no_fleet_that_may_have_been_guarded(
    line: str, launched: bool, guarded: bool
) -> None:
    made = ours(line, launched=launched)
    assert "--replica-key-file FILE" in made.line
    assert ("--keys-file FILE" in made.line) == guarded
    [fault] = [fault for fault in made.faults if "api-key" in fault.partition(":")[0]]
    assert ("--keys-file FILE" in fault) == guarded


def test_a_command_of_smg_is_never_taken_for_one_of_another_program() -> None:
    for line in ("--worker-urls http://a:1", "--worker-urls http://a:1 --kv-event-model m --profile"):
        made = ours(line, launched=True)
        assert made.program is not None
        assert made.program.name == "smg"
        assert "vllm-router" not in "".join(made.lines())


def test_where_nothing_can_be_written_instead_no_line_is_said() -> None:
    assert ours("--pd-disaggregation", launched=True).lines() == []
    assert "--hold-len-max" not in ours("--queue-size 10 --port 1").line


@pytest.mark.parametrize(
    ("line", "ending", "fault"),
    [
        ("--policy prefix_hash --sticky-sessions", "--policy prefix", " instead of --policy prefix"),
        (
            "--sticky-sessions --policy round_robin",
            "--policy round_robin",
            " instead of --policy round_robin",
        ),
        (
            "--sticky-sessions --routing-key-headers x-u",
            "--key-header x-u --policy ring",
            "x-smg-routing-key",
        ),
        ("--dp-size 4 --worker-urls http://a:1", "--replica http://a:1", "use --replica URL"),
        ("--health-check-port 9 --worker-urls http://a:1", "--replica http://a:1", "use --admin HOST:PORT"),
        ("--service-discovery --selector a=b", "--kubernetes-selector a=b", "--kubernetes-selector a=b"),
    ],
)
def test_the_line_has_an_advice_whole_and_never_against_what_was_written(
    line: str, ending: str, fault: str
) -> None:
    made = ours(line)
    assert made.line.endswith(ending)
    flags = [word for word in shlex.split(made.line) if word.startswith("--")]
    assert len(flags) == len(set(flags))
    assert made.faults[-1].endswith(fault)


def test_our_own_command_lines_stay_as_they_are() -> None:
    line = (
        "--replica http://a:1 --policy cache_aware --log-level warning --listen 127.0.0.1:1 stray --nonsense"
    )
    made = ours(line)
    assert made.words == shlex.split(line)
    assert made.lines() == []
    assert made.faults == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "--worker-urls http://a:1 http://b:2 --port 8000 --prometheus-port 9000",
            "--admin 127.0.0.1:9000 --listen 127.0.0.1:8000 --replica http://a:1 --replica http://b:2",
        ),
        (
            "--worker-urls http://a:1 --policy power_of_two",
            "--admin 127.0.0.1:29000 --listen 127.0.0.1:30000 --replica http://a:1 --policy two_choices",
        ),
        ("--host 0.0.0.0 --port=80", "--listen 0.0.0.0:80"),
        ("--host :: --port 80", "--listen [::]:80"),
        ("--prometheus-host 0.0.0.0", "--admin 0.0.0.0:29000"),
        ("--policy consistent_hash", "--policy ring --key-header x-session-id"),
        ("--policy consistent_hashing", "--policy ring --key-header x-smg-routing-key"),
        ("--policy consistent_hashing --routing-key-headers x-mine", "--policy ring --key-header x-mine"),
        ("--routing-key-headers x-mine --policy consistent_hashing", "--key-header x-mine --policy ring"),
        ("--key-header x-mine --policy consistent_hashing", "--key-header x-mine --policy ring"),
        ("--retry-max-retries 9", "--engine-attempts-max 5"),
        ("--retry-max-retries 0", "--engine-attempts-max 1"),
        ("--disable-retries", "--engine-attempts-max 1"),
        ("--cb-timeout-duration-secs 60", "--engine-eject-s 60 --engine-eject-max-s 60"),
        ("--cb-timeout-duration-secs 5", "--engine-eject-s 5"),
        ("--log-level warn", "--log-level warning"),
        ("--log-json", "--log-format json"),
        ("--cors-allowed-origins https://a", "--cors-origin https://a"),
        ("--max-concurrent-requests -1 --queue-timeout-secs 9", "--hold-timeout-s 9"),
        ("--router-queue-timeout-secs 9", "--hold-timeout-s 9"),
        ("--routing-logic session --session-key x-user-id", "--policy ring --key-header x-user-id"),
    ],
)
def test_what_means_the_same_becomes_ours(line: str, words: str) -> None:
    made = ours(line)
    assert made.words == shlex.split(words)
    assert made.faults == []
    assert (
        main(["config", "check", *made.words, *([] if "--replica" in words else ["--replica", "http://r"])])
        == 0
    )


@pytest.mark.parametrize("text", ["\N{SUPERSCRIPT TWO}", "9" * 5000, "-1", "x"])
def test_what_is_no_number_is_passed_on_for_the_option_to_refuse(text: str) -> None:
    assert ours(f"--worker-urls http://a:1 --retry-max-retries={text}").words[-2:] == [
        "--engine-attempts-max",
        text,
    ]


def test_production_stack_listens_where_it_did_and_keeps_its_metrics_apart() -> None:
    made = ours(
        "--service-discovery static --static-backends http://a:1,http://b:2 --static-models m,m "
        "--static-backend-health-checks --static-model-types chat,chat --log-stats --routing-logic roundrobin"
    )
    assert made.words == shlex.split(
        "--listen 0.0.0.0:8001 --replica http://a:1 --replica http://b:2 --policy round_robin"
    )
    assert made.program is not None
    assert made.program.name == "production-stack"
    assert ("(its /metrics)", "on the admin listener: --admin HOST:PORT") in made.said


@pytest.mark.parametrize(
    ("line", "launched", "listen"),
    [
        ("--worker-urls http://a:1", False, "127.0.0.1:30000"),
        ("--worker-urls http://a:1", True, "0.0.0.0:30000"),
        ("--worker-urls http://a:1 --disable-health-check", False, "0.0.0.0:30000"),
        ("--static-backends http://a:1", False, "0.0.0.0:8001"),
    ],
)
def test_a_whole_command_line_gets_the_addresses_of_its_program(
    line: str, launched: bool, listen: str
) -> None:
    made = ours(line, launched=launched)
    assert made.words[made.words.index("--listen") + 1] == listen


def test_where_programs_listen_differently_that_is_said() -> None:
    [where] = [text for _, text in ours("--worker-urls http://a:1 --port 80").said if "--listen" in text]
    assert "smg and sglang-router would listen on 0.0.0.0" in where
    [where] = [text for _, text in ours("--worker-urls http://a:1 --host 0.0.0.0").said if "--listen" in text]
    assert where == "--listen 0.0.0.0:30000"


def test_what_a_file_or_the_environment_may_set_gets_no_default_of_theirs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKYLB_LISTEN", "127.0.0.1:7")
    assert main(["config", "show", "--worker-urls", "http://a:1"]) == 0
    assert 'listen = ["127.0.0.1:7"]' in capsys.readouterr().out
    monkeypatch.delenv("SKYLB_LISTEN")
    (tmp_path / "skylb.toml").write_text('admin = "127.0.0.1:6"\n')
    assert (
        main(["config", "show", "--worker-urls", "http://a:1", "--config", str(tmp_path / "skylb.toml")]) == 0
    )
    assert 'admin = "127.0.0.1:6"' in capsys.readouterr().out


def test_an_address_that_is_given_in_both_ways_is_a_fault() -> None:
    assert ours("--listen 127.0.0.1:1 --port 2").faults == [
        "--port 2: --listen is given too: expected one of both"
    ]


def refusals(line: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["serve", *shlex.split(line)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err.splitlines()


def test_all_that_has_no_counterpart_is_answered_at_once_with_the_line_to_use(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = refusals(
        "--vllm-pd-disaggregation --prefill http://p:1 9000 --prefill http://p:2 --decode http://d:1 "
        "--port 80 --api-key SECRET --service-discovery --selector app=x role=y "
        "--service-discovery-port 8000 --polcy x",
        capsys,
    )
    text = "\n".join(lines)
    assert "SECRET" not in text
    assert "skylb: 6 faults in the configuration:" in lines
    assert "--vllm-pd-disaggregation, --prefill, --decode: SkyLB has no pools for prefill and decode." in text
    assert "--api-key: everybody on a machine can read its command lines" in text
    assert "--selector: it finds pods by their labels." in text
    assert "--polcy: unknown flag; did you mean --policy?" in text
    [line] = [line for line in lines if line.startswith("with SkyLB's own flags: ")]
    assert line.endswith(
        "skylb serve --listen 127.0.0.1:80 --polcy x --replica-key-file FILE "
        "--kubernetes-selector app=x,role=y --kubernetes-port 8000"
    )


def test_what_was_just_said_to_be_used_is_not_missed_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    lines = refusals("--service-discovery k8s", capsys)
    assert "skylb: 1 fault in the configuration:" in lines
    assert "no replicas" not in "".join(lines)
    assert "no replicas" in "".join(refusals("--queue-size 7", capsys))


def test_smg_serve_is_answered_that_no_engines_are_started(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(
        refusals("--backend vllm --model meta/x --port 8080 --dp-size 4 --router-policy random", capsys)
    )
    assert "--dp-size: SkyLB starts no engines" in text
    assert "--model: SkyLB starts no engines" in text
    assert "--router-policy random" in text


@pytest.mark.parametrize("flag", ["--port", "--worker-urls", "--selector", "--worker-urls="])
def test_a_flag_of_theirs_without_its_value_is_a_fault(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(refusals(f"{flag} --replica http://a:1", capsys))
    assert f"{flag.rstrip('=')}" in text
    assert "expected" in text


def test_no_secret_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    secrets = "--api-key S3 --oracle-password S3 --redis-url redis://:S3@h --postgres-db-url S3 "
    secrets += (
        "--control-plane-api-keys a:b:admin:S3 --tenant-api-key t:S3 --sentry-dsn S3 --jwt-role-mapping S3"
    )
    assert "S3" not in "\n".join(refusals(secrets, capsys))


def test_a_policy_of_theirs_is_ours_or_answered_and_never_taken_for_another() -> None:
    for name in POLICIES:
        made = ours(f"--worker-urls http://a:1 --policy {name}")
        assert ("--policy" in made.words) != bool(made.faults)
    for name in ROUTING:
        made = ours(f"--static-backends http://a:1 --routing-logic {name}")
        assert ("--policy" in made.words) != bool(made.faults)


def test_what_became_of_flags_is_json_where_logs_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKYLB_LOG_FORMAT", "json")
    assert main(["config", "check", "--worker-urls", "http://a:1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0]["message"] == "flags of vllm-router, and what became of them:"
    assert all(line["level"] == "info" for line in lines)


def words_of(lines: Sequence[str]) -> list[str]:
    [line] = [line for line in lines if line.startswith("with SkyLB's own flags: skylb serve ")]
    return shlex.split(line.removeprefix("with SkyLB's own flags: skylb serve "))


def test_the_line_that_is_said_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    line = "--worker-urls http://a:1 http://b:2 --policy power_of_two --queue-timeout-secs 9 --log-level warn"
    assert main(["config", "show", *shlex.split(line)]) == 0
    said = capsys.readouterr()
    assert main(["config", "show", *words_of(said.err.splitlines())]) == 0
    assert capsys.readouterr().out == said.out
