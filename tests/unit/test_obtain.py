"""The line that a message gives to install an optional library: it works where the reader stands."""

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from skylb import obtain
from skylb.errors import missing

PYTHON = "/opt/my env/bin/python"
QUOTED = f"'{PYTHON}'"


class Recorded:
    """A distribution with what its installer recorded."""

    def __init__(self, origin: str | None = None) -> None:
        self._origin = origin
        self.requires = [
            "aiohttp>=3",
            "matplotlib<4,>=3 ; extra == 'sim'",
            'dnspython>=2; extra == "dns"',
            "boto3 ; extra == 'route53'",
        ]

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self._origin


Installed = Callable[..., None]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Installed:
    """Makes this an installation: what the environment has besides SkyLB, and what was recorded."""

    def make(*others: str, origin: str | None = None, pip: bool = True) -> None:
        def found(name: str) -> Recorded:
            if name not in {"skylb", *others}:
                raise PackageNotFoundError(name)
            return Recorded(origin)

        monkeypatch.setattr(obtain, "PUBLISHED", False)
        monkeypatch.setattr(obtain, "distribution", found)
        monkeypatch.setattr(obtain, "find_spec", lambda name: object() if pip and name == "pip" else None)
        monkeypatch.setattr(sys, "executable", PYTHON)
        monkeypatch.setattr(sys, "prefix", str(tmp_path))

    return make


@pytest.mark.parametrize("origin", [None, '{"url": "file:///nowhere/skylb-1.2.3.whl", "archive_info": {}}'])
def test_pip_of_this_interpreter_adds_the_library_whether_the_wheel_is_there_or_not(
    installed: Installed, origin: str | None
) -> None:
    installed(origin=origin)
    assert obtain.command("sim") == f"{QUOTED} -m pip install 'matplotlib<4,>=3'"
    assert obtain.command("route53") == f"{QUOTED} -m pip install boto3"


@pytest.mark.parametrize(
    "origin",
    ["no JSON", "[7]", '{"url": 7}', '{"url": "file:///a%00b"}', '{"url": "file:///", "dir_info": []}'],
)
def test_a_record_that_is_broken_says_nothing(installed: Installed, tmp_path: Path, origin: str) -> None:
    (tmp_path / "uv-receipt.toml").touch()
    installed(origin=origin, pip=False)
    assert obtain.command("route53") == f"uv pip install --python {QUOTED} boto3"


@pytest.mark.parametrize(("line", "is_uvs"), [(b"uv = 0.9", True), (b"home = /b", False)])
def test_the_file_of_an_environment_may_be_of_any_text(
    installed: Installed, tmp_path: Path, line: bytes, is_uvs: bool
) -> None:
    (tmp_path / "pyvenv.cfg").write_bytes(b"prompt = \xff\n" + line + b"\n")
    installed(pip=False)
    assert obtain.command("route53").startswith("uv pip install ") is is_uvs


def test_pipx_injects_into_the_environment_that_this_is(installed: Installed, tmp_path: Path) -> None:
    installed(pip=False)
    (tmp_path / "pipx_metadata.json").touch()
    assert obtain.command("dns") == f"pipx inject {tmp_path.name} 'dnspython>=2'"


def test_a_tool_of_uv_keeps_what_an_earlier_line_added(installed: Installed, tmp_path: Path) -> None:
    wheel = tmp_path / "with space" / obtain.wheel("1.2.3", "x86_64")
    wheel.parent.mkdir()
    wheel.touch()
    (tmp_path / "uv-receipt.toml").touch()
    installed("dnspython", origin=f'{{"url": "{wheel.as_uri()}", "archive_info": {{}}}}', pip=False)
    added = "--with 'matplotlib<4,>=3' --with 'dnspython>=2'"
    assert obtain.command("sim") == f"uv tool install {added} '{wheel}'"


def test_a_tool_of_uv_whose_wheel_is_gone_gets_the_library_itself(
    installed: Installed, tmp_path: Path
) -> None:
    (tmp_path / "uv-receipt.toml").touch()
    installed(origin='{"url": "file:///nowhere/skylb-1.2.3.whl", "archive_info": {}}', pip=False)
    assert obtain.command("route53") == f"uv pip install --python {QUOTED} boto3"


def test_a_checkout_that_is_a_tool_of_uv_is_installed_as_it_was(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "uv-receipt.toml").touch()
    installed(origin=f'{{"url": "{tmp_path.as_uri()}", "dir_info": {{"editable": true}}}}', pip=False)
    assert obtain.command("route53") == f"uv tool install --with boto3 --editable {tmp_path}"


def test_an_environment_without_pip_is_filled_by_uv_if_uv_made_it(
    installed: Installed, tmp_path: Path
) -> None:
    installed(pip=False)
    made = tmp_path / "pyvenv.cfg"
    made.write_text("home = /usr/bin\nuv = 0.13.9\n")
    assert obtain.command("route53") == f"uv pip install --python {QUOTED} boto3"
    made.write_text("home = /usr/bin\n")
    line = f"{QUOTED} -m ensurepip && {QUOTED} -m pip install boto3"
    assert obtain.command("route53") == line, "as in the image, which has removed its pip"
    made.unlink()
    assert obtain.command("route53") == line


def test_a_checkout_that_is_not_installed_is_named_as_the_directory_it_is(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(name: str) -> Recorded:
        raise PackageNotFoundError(name)

    installed()
    monkeypatch.setattr(obtain, "distribution", none)
    assert obtain.command("sim") == f"{QUOTED} -m pip install '.[sim]'"


def test_a_published_tool_of_uv_is_installed_by_its_name(
    installed: Installed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed(pip=False)
    (tmp_path / "uv-receipt.toml").touch()
    monkeypatch.setattr(obtain, "PUBLISHED", True)
    assert obtain.command("route53") == "uv tool install --with boto3 skylb"


def test_a_message_names_the_library_and_the_line_that_installs_it() -> None:
    assert missing("boto3") == f"boto3 is not installed: {obtain.command('route53')}"
    assert "boto3>=" in missing("boto3")
    with pytest.raises(KeyError):
        missing("nothing")
