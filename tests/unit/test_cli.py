import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skylb import _core
from skylb.cli import main
from skylb.commands import COMMANDS
from skylb.config import Settings
from skylb.helptext import HELP_ALL
from skylb.options import options
from skylb.settings.sections import EXAMPLES
from skylb.tools.demo import DemoSettings
from skylb.tools.load import LoadSettings
from skylb.tools.mock import MockSettings
from skylb.tools.wan import WanSettings

SKYLB = [sys.executable, "-m", "skylb"]


def test_the_version_is_the_cores(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"skylb {_core.__version__}\n"


def test_without_a_command_the_commands_are_listed_and_the_status_is_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    told = capsys.readouterr().err
    assert all(f"  {name} " in told for name in COMMANDS)


@pytest.mark.parametrize("word", ["--help", HELP_ALL])
def test_the_help_of_all_commands_says_how_to_see_the_flags_of_one(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = help_of([word], capsys)
    assert all(f"  {name} " in told for name in COMMANDS)
    assert "skylb COMMAND --help-all every flag." in told


@pytest.mark.parametrize("command", ["config", "trace", "keys"])
def test_a_command_that_lacks_its_next_word_says_so(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 2
    assert f"  skylb {command}: the next word is missing: expected skylb {command} " in (
        capsys.readouterr().err
    )
    assert main([command, "shwo"]) == 2
    assert f"  'shwo': expected skylb {command} " in capsys.readouterr().err


def test_a_word_without_a_flag_is_called_as_the_usage_line_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["trace", "mooncake"]) == 2
    assert "  WORKLOAD: missing: expected the path of a file" in capsys.readouterr().err
    assert main(["trace", "--help"]) == 0
    assert "skylb trace mooncake WORKLOAD --output FILE" in capsys.readouterr().out
    assert main(["sim", "/none"]) == 2
    assert "  SCENARIO: '/none': expected " in capsys.readouterr().err
    assert main(["sim", "--scenario", "/none"]) == 2
    assert "  --scenario: '/none': expected " in capsys.readouterr().err


def test_what_is_no_scenario_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["sim", str(tmp_path)]) == 2
    assert "the directory holds no recording: scenario.toml is missing" in capsys.readouterr().err
    for name, text in (("moon.jsonl", b'{"timestamp": 0}\n'), ("moon.jsonl.gz", b"\x1f\x8b\x08\0")):
        (tmp_path / name).write_bytes(text)
        assert main(["sim", str(tmp_path / name)]) == 2
        told = capsys.readouterr().err
        assert "a file of requests is no scenario" in told
        assert f'[workload] kind = "file", path = "{name}"' in told


def test_an_unknown_command_is_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    for word, meant in (("srve", "serve"), ("start", "serve"), ("status", "state"), ("version", "--version")):
        assert main([word]) == 2
        assert f"skylb: {word}: unknown command: did you mean skylb {meant}? Commands: serve," in (
            capsys.readouterr().err
        )
    assert main(["frobnicate"]) == 2
    assert "frobnicate: unknown command. Commands:" in capsys.readouterr().err


def test_a_command_needs_no_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wan"]) == 2
    assert (
        capsys.readouterr().err
        == "skylb: 1 fault in the configuration:\n  link: expected at least one, or tell\n"
    )


def test_every_fault_of_a_command_line_is_told_and_the_status_is_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = "--lissten a:1 --engine-blok-bytes=3 --listen --hold-len-max -5 stray --policy x --seed"
    assert main(["serve", *words.split()]) == 2
    told = capsys.readouterr().err
    assert told.startswith("skylb: 8 faults in the configuration:\n")
    assert "--lissten: unknown flag; did you mean --listen?" in told
    assert "--engine-blok-bytes: unknown flag; did you mean --engine-block-bytes?" in told
    assert "--listen: expected a value" in told
    assert "--hold-len-max: '-5': expected an integer at least 0" in told
    assert "'stray': unexpected argument" in told
    assert "--policy: 'x': expected one of" in told
    assert "--seed: expected a value" in told
    assert "no replicas" in told


def test_check_starts_nothing_and_answers_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--replica", "http://127.0.0.1:1"]) == 0
    assert capsys.readouterr().out == "the configuration is good; values given: 1, the others are defaults\n"


def test_no_access_log_is_short_for_access_log_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--replica", "http://a", "--no-access-log"]) == 0
    assert 'access_log = "off"' in capsys.readouterr().out


def test_the_last_of_a_repeated_flag_counts_where_one_value_is_meant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", "show", "--replica", "http://a", "--policy", "ring", "--policy=prefix"]) == 0
    assert 'policy = "prefix"' in capsys.readouterr().out


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"^  (--[a-z0-9-]+)", text, re.MULTILINE))


def test_help_all_names_each_flag_with_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    told = " ".join(help_of(["serve", "--help-all"], capsys).split())
    about = "Longest time that a request waits in the hold, SkyLB's own queue. Then it gets 503 with"
    assert f"--hold-timeout-s SECONDS {about} Retry-After. (default: 30; SKYLB_HOLD_TIMEOUT_S)" in told


def test_help_shows_about_twenty_flags_and_help_all_every_one(capsys: pytest.CaptureFixture[str]) -> None:
    common = flags_in(help_of(["serve", "--help"], capsys))
    assert {"--replica", "--listen", "--policy", "--config", HELP_ALL} <= common
    assert 18 <= len(common) <= 26
    everything = help_of(["serve", HELP_ALL], capsys)
    assert {option.flag for option in options(Settings)} <= flags_in(everything)
    assert "--engine-queue-weight" in everything
    assert main(["config", "show", "--replica", "http://a", "--engine-queue-weight", "7"]) == 0
    assert "queue_weight = 7.0" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--help", HELP_ALL])
@pytest.mark.parametrize("command", [*COMMANDS, "keys new", "keys list", "keys revoke", "config show"])
def test_help_fits_eighty_columns(
    command: str, word: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    if command in {"keys", "config", "trace"}:
        assert main([command, word]) == 0
        text = capsys.readouterr().out
    else:
        text = help_of([*command.split(), word], capsys)
    assert not [line for line in text.splitlines() if len(line) > 80]


@pytest.mark.parametrize("title", EXAMPLES)
def test_each_section_of_serve_has_an_example_of_flags_that_exist(
    title: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {option.flag for option in options(Settings)}
    assert set(re.findall(r"--[a-z-]+", EXAMPLES[title])) <= known
    assert f"{title}:\n  example: {EXAMPLES[title].splitlines()[0]}" in help_of(["serve", HELP_ALL], capsys)


def test_a_flag_that_is_on_by_default_shows_how_it_is_turned_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--no-directives" in flags_in(help_of(["load", "--help"], capsys))
    assert "--no-inject-usage" in flags_in(help_of(["serve", HELP_ALL], capsys))
    assert "--no-json" not in flags_in(help_of(["state", "--help"], capsys))
    assert main(["config", "show", "--replica", "http://a", "--inject-usage", "--no-inject-usage"]) == 0


@pytest.mark.parametrize(
    "words",
    [[name, "--help"] for name in COMMANDS] + [["config", "table", "--help"], ["config", "show", "-h"]],
)
def test_every_command_tells_its_use_when_asked(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(words)
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status == 0
    assert capsys.readouterr().out.startswith("usage: skylb")


def test_show_prints_the_values_also_where_serve_would_refuse_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", "show"]) == 0
    said = capsys.readouterr()
    assert 'listen = ["127.0.0.1:8080"]' in said.out
    assert said.err.startswith("skylb: 1 fault for skylb serve:\n  no replicas: expected")
    assert main(["config", "show", "--hold-len-max", "-1"]) == 2
    assert main(["config", "check"]) == 2


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--bind", "; expected --listen HOST:PORT"),
        ("--upstream", "; expected --replica URL"),
        ("--metrics-port", "; expected --admin HOST:PORT"),
        ("--replicas", "; expected --replica URL, once for each"),
        ("--quiet", "; expected --log-level error, and --no-access-log"),
        ("--hold-time-s", "; did you mean --hold-timeout-s?"),
        ("--frobnicate", "\n"),
        ("--prot", "\n"),
    ],
)
def test_a_hint_names_what_was_meant_or_nothing(
    flag: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", flag, "1"]) == 2
    assert f"{flag}: unknown flag{hint}" in capsys.readouterr().err


def test_no_rate_is_said_to_be_a_time() -> None:
    found = [
        option
        for model in (Settings, DemoSettings, LoadSettings, MockSettings, WanSettings)
        for option in options(model)
    ]
    rates = {option.name: option.metavar for option in found if "_per_s" in option.name}
    assert len(rates) >= 5
    assert all(metavar.endswith("PER_SECOND") for metavar in rates.values())
    assert all(("BYTES_" in metavar) == ("bytes_" in name) for name, metavar in rates.items())
    units = {"_ms": "MILLISECONDS", "_us": "MICROSECONDS", "_tokens": "TOKENS", "_bytes": "BYTES"}
    for option in found:
        for ending, metavar in units.items():
            assert not option.name.endswith(ending) or option.metavar == metavar, option.name
    times = [option for option in found if option.metavar == "SECONDS"]
    assert times
    assert not [option.name for option in times if "_per_" in option.name]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("serve", "One of prefix, predictive, ring,"),
        ("serve", "--peer NAME[@REGION]=SYNC_URL[,FORWARD_URL] "),
        ("serve", "Turn --inject-usage off."),
        ("serve", "(default: a quarter of --hold-len-max; SKYLB_ENGINE_HOLD_TENANT_LEN_MAX)"),
        ("mock", "503. (default: no limit)"),
        ("sim", "--plots DIR "),
        ("load", "--target [REGION=]URL "),
    ],
)
def test_help_shows_the_form_of_a_value_and_what_holds_without_it(
    command: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, HELP_ALL])
    assert text in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", [["config", "show"], ["serve", "--help"], ["config", "table"], ["--help"]])
def test_a_reader_that_leaves_is_no_fault(words: list[str]) -> None:
    found = subprocess.Popen([*SKYLB, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert found.stdout is not None
    found.stdout.close()
    _, said = found.communicate()
    assert b"Traceback" not in said
    assert b"Broken" not in said
    assert found.returncode == 141


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words", [["config", "show"], ["--help"], ["--version"], ["sim", "--help"], ["serve", HELP_ALL]]
)
def test_output_that_cannot_be_written_is_told_in_a_line(words: list[str], unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("wb") as full:
        found = subprocess.run(
            [*SKYLB, *words], stdout=full, stderr=subprocess.PIPE, check=False, env=environment
        )
    assert found.returncode == 1
    assert found.stderr.decode().endswith("skylb: the output cannot be written: No space left on device\n")
    assert b"Traceback" not in found.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "--log-format", "json", "--hold-len-max", "x"],
        ["serve", "--log-format=json", "--frobnicate", "1"],
        ["launch", "--log-json", "--frobnicate", "1"],
        ["serve", "--config", "FILE"],
    ],
)
def test_faults_of_a_balancer_are_json_where_json_is_asked_for(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "skylb.toml"
    file.write_text('hold_len_max = "x"\nlog_format = "json"\n')
    assert main([word.replace("FILE", str(file)) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = [json.loads(line) for line in said.err.splitlines()]
    faults = [line["message"] for line in lines if line["type"] == "fault"]
    assert len(faults) == 2
    assert all({"ts", "type", "level", "logger", "message"} <= line.keys() for line in lines)


def test_the_variable_asks_for_json_too_and_a_flag_counts_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYLB_LOG_FORMAT", "json")
    assert main(["serve", "--hold-len-max", "x"]) == 2
    assert json.loads(capsys.readouterr().err.splitlines()[0])["type"] == "fault"
    assert main(["serve", "--hold-len-max", "x", "--log-format", "text"]) == 2
    assert capsys.readouterr().err.startswith("skylb: 2 faults in the configuration:\n")


def test_a_traceback_is_one_line_where_logs_are_json() -> None:
    program = (
        "import logging, threading, warnings\n"
        "from skylb.output import tell_crashes_in_json\n"
        "tell_crashes_in_json()\n"
        "logging.getLogger('skylb.x').warning('early')\n"
        "warnings.warn('careful')\n"
        "thread = threading.Thread(target=lambda: 1 / 0)\n"
        "thread.start(); thread.join()\n"
        "class Bad:\n    def __del__(self): raise ValueError('late')\n"
        "Bad()\n"
        "raise RuntimeError('unforeseen')\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    lines = [json.loads(line) for line in found.stderr.splitlines()]
    assert [line["type"] for line in lines] == ["log", "log", "crash", "crash", "crash"]
    assert "RuntimeError: unforeseen" in lines[-1]["error"]


def test_a_fault_in_a_file_names_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "skylb.toml"
    file.write_text('replica = ["http://a"]\n\n[timeout]\n# long\nhead_s = "x"\nbody = 3\n')
    assert main(["config", "check", "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert f"{file}:5: timeout.head_s: 'x': expected a number above 0" in said
    assert f"{file}:6: timeout.body: unknown key" in said


@pytest.mark.parametrize("command", [["doctor"], ["config", "check"], ["config", "show"]])
def test_commands_that_take_serves_flags_take_a_line_of_launch(command: list[str]) -> None:
    words = [*command, "launch", "--worker-urls", "http://127.0.0.1:1", "--policy", "random"]
    found = subprocess.run([*SKYLB, *words], capture_output=True, text=True, check=False)
    assert "flags of smg, and what became of them:" in found.stderr
    assert "faults" not in found.stderr
