"""The units of systemd: valid, locked down, and in step with the program."""

import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from skylb.config import Settings
from skylb.inherited import LISTENERS
from skylb.notify import STOP_MARGIN_S
from tests.support.processes import SKYLB

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
EXPOSURE_MAX = 15
"""Of 100, as ``systemd-analyze security`` counts; without the hardening it says 96."""

OLDEST = 250
"""Of systemd: it examines a unit that is not installed (``--offline``)."""


def version() -> int:
    """Of the systemd that is installed; 0: none is."""
    if shutil.which("systemd-analyze") is None:
        return 0
    said = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[1].partition(".")[0].partition("~")[0])


real = pytest.mark.skipif(version() < OLDEST, reason=f"systemd {OLDEST} or later is not installed")


class Unit(RawConfigParser):
    """A unit's file: names are case-sensitive, and the last value of a repeated one counts."""

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, interpolation=None)
        self.read_string((UNITS / name).read_text())

    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, as they would be where the program is this one."""
    for path in UNITS.glob("skylb.s*"):
        text = path.read_text().replace("/opt/skylb/bin/skylb", f"{sys.executable} -m skylb")
        (tmp_path / path.name).write_text(text)
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@real
def test_systemd_finds_no_fault(units: Path) -> None:
    checked = analyze("verify", "--man=no", *(str(path) for path in units.glob("skylb.s*")))
    faults = [
        line for line in checked.stderr.splitlines() if "skylb" in line
    ]  # not of this machine's own units
    assert faults == []


@real
def test_systemd_finds_a_planted_fault(units: Path) -> None:
    service = units / "skylb.service"
    service.write_text(service.read_text().replace("LockPersonality=", "LockPersonalty="))
    assert "LockPersonalty" in analyze("verify", "--man=no", str(service)).stderr


@real
def test_the_service_is_exposed_as_little_as_its_sockets_allow(units: Path) -> None:
    limit = (f"--threshold={EXPOSURE_MAX}", "--offline=true")
    checked = analyze("security", *limit, str(units / "skylb.service"))
    assert checked.returncode == 0, checked.stdout
    (units / "skylb.service").write_text("[Service]\nExecStart=/bin/true\n")
    assert analyze("security", *limit, str(units / "skylb.service")).returncode != 0


def test_systemd_waits_longer_than_the_drain() -> None:
    defaults = Settings(replica=["http://a:1"])
    least_s = defaults.drain_delay_s + defaults.drain_timeout_s + STOP_MARGIN_S
    assert float(Unit("skylb.service")["Service"]["TimeoutStopSec"]) > least_s


def test_a_configuration_at_fault_is_not_started_again() -> None:
    assert Unit("skylb.service")["Service"]["RestartPreventExitStatus"] == "2"


def test_the_socket_has_the_name_of_a_listener() -> None:
    assert Unit("skylb.socket")["Socket"]["FileDescriptorName"] in LISTENERS


def test_the_example_of_settings_is_good_and_its_comments_are_settings_too(tmp_path: Path) -> None:
    text = (UNITS / "skylb.toml").read_text()
    for number, path in enumerate(re.findall(r"/run/credentials/[\w./-]+", text)):
        key = tmp_path / str(number)
        key.write_text("one-word\n")
        key.chmod(0o600)
        text = text.replace(path, str(key))
    config = tmp_path / "skylb.toml"
    config.write_text(re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE))
    checked = subprocess.run(
        [*SKYLB, "config", "check", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert "values given: 6" in checked.stdout
