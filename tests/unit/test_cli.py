import pytest

from skylb import _core
from skylb.cli import COMMANDS, main


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
    assert "--hold-timeout-s SECONDS longest wait in the hold (default: 30; SKYLB_HOLD_TIMEOUT_S)" in told
