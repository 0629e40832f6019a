import subprocess
import sys
from pathlib import Path

import pytest

from skylb import _core
from skylb.cli import COMMANDS, main
from skylb.config import Settings
from skylb.options import options
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


def test_an_unknown_command_is_corrected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["srve"]) == 2
    assert "did you mean serve?" in capsys.readouterr().err


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


def test_help_names_each_flag_with_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--help"])
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    about = "Longest time that a request waits in the hold, SkyLB's own queue. Then it gets 503 with"
    assert f"--hold-timeout-s SECONDS {about} Retry-After. (default: 30; SKYLB_HOLD_TIMEOUT_S)" in told


def test_experimental_flags_are_shown_by_help_all_alone_and_work_either_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = {}
    for word in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as ended:
            main(["serve", word])
        assert ended.value.code == 0
        shown[word] = capsys.readouterr().out
    assert "--engine-queue-weight" not in shown["--help"]
    assert "--help-all" in shown["--help"]
    assert "--engine-queue-weight" in shown["--help-all"]
    assert {option.flag for option in options(Settings)} <= set(shown["--help-all"].split())
    assert main(["config", "show", "--replica", "http://a", "--engine-queue-weight", "7"]) == 0
    assert "queue_weight = 7.0" in capsys.readouterr().out


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
        ("--replicas", "; did you mean --replica?"),
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
    assert set(rates.values()) == {"PER_SECOND"}
    times = [option for option in found if option.metavar == "SECONDS"]
    assert times
    assert not [option.name for option in times if "_per_" in option.name]


@pytest.mark.parametrize(
    ("command", "text"),
    [
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
        main([command, "--help"])
    assert text in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", [["config", "show"], ["serve", "--help"], ["config", "table"], ["--help"]])
def test_a_reader_that_leaves_is_no_fault(words: list[str]) -> None:
    found = subprocess.Popen([*SKYLB, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert found.stdout is not None
    found.stdout.close()
    _, said = found.communicate()
    assert b"Traceback" not in said
    assert b"Broken" not in said
    assert found.returncode == (0 if "--help" in words else 141)  # argparse does not mind


def test_output_that_cannot_be_written_is_told_in_a_line() -> None:
    with Path("/dev/full").open("wb") as full:
        found = subprocess.run([*SKYLB, "config", "show"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert found.returncode == 1
    assert found.stderr.decode().endswith("skylb: the output cannot be written: No space left on device\n")
    assert b"Traceback" not in found.stderr
