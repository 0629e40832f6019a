"""What ``skylb wan`` takes and refuses."""

from pathlib import Path

import pytest

from skylb.errors import ConfigError
from skylb.options import load
from skylb.tools.wan.command import CommandError, parse, read_script
from skylb.tools.wan.settings import WanSettings


def settings(**flags: object) -> WanSettings:
    return load(WanSettings, flags=flags).settings


def test_a_profile_knows_its_links_by_their_ends_in_either_order() -> None:
    found = settings(link=["eu-us=127.0.0.1:0,127.0.0.1:9"], profile=["us-eu-asia"])
    assert found.shape(frozenset({"us", "eu"})).rtt_s == 0.09
    assert found.shape(frozenset({"asia", "eu"})).rtt_s == 0.23


def test_what_is_given_replaces_the_profiles_figure() -> None:
    found = settings(link=["eu-us=127.0.0.1:0,127.0.0.1:9"], profile=["us-eu-asia"], rtt_s=["0.5"])
    shape = found.shape(frozenset({"us", "eu"}))
    assert (shape.rtt_s, shape.jitter_s) == (0.5, 0.002)


@pytest.mark.parametrize(
    "link",
    [
        "us=127.0.0.1:0,127.0.0.1:9",
        "us-us=127.0.0.1:0,127.0.0.1:9",
        "us-eu=127.0.0.1:0",
        "us-eu-x=127.0.0.1:0,127.0.0.1:9",
        "u s-eu=127.0.0.1:0,127.0.0.1:9",
        "us-eu=127.0.0.1,127.0.0.1:9",
    ],
)
def test_a_link_that_is_none_is_refused(link: str) -> None:
    with pytest.raises(ConfigError, match="A-B=LISTEN,TARGET"):
        settings(link=[link])


def test_without_links_or_commands_there_is_nothing_to_do() -> None:
    with pytest.raises(ConfigError, match="expected at least one, or tell"):
        settings()
    with pytest.raises(ConfigError, match="expected with control"):
        settings(tell=["{}"])


@pytest.mark.parametrize("line", [b"", b"[]", b'{"fault":"fire"}', b'{"rtt_s":-1}', b'{"lnk":"x"}', b"\xff"])
def test_a_line_that_is_no_command_is_refused(line: bytes) -> None:
    with pytest.raises(CommandError):
        parse(line)


def test_a_script_is_read_in_the_order_of_its_times_and_faults_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text('# weather\n{"at_s": 2, "fault": "none"}\n\n{"at_s": 1, "fault": "cut"}\n')
    assert [command.fault for command in read_script(path)] == ["cut", "none"]
    path.write_text('{"at_s": 2}\nstorm\n')
    with pytest.raises(CommandError, match="line 2"):
        read_script(path)
