"""The line that a message gives to install an optional library: it works where the reader stands."""

import platform
import shlex
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from skylb import obtain
from skylb.errors import missing


class Recorded:
    """A distribution with what pip recorded of its origin."""

    version = "1.2.3"

    def __init__(self, origin: str | None) -> None:
        self._origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self._origin


def installed(monkeypatch: pytest.MonkeyPatch, origin: str | None) -> None:
    monkeypatch.setattr(obtain, "PUBLISHED", False)
    monkeypatch.setattr(obtain, "distribution", lambda name: Recorded(origin) if name == "skylb" else None)


def test_a_wheel_that_is_still_there_is_named_by_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "with space" / obtain.wheel("1.2.3", "x86_64")
    path.parent.mkdir()
    path.touch()
    installed(monkeypatch, f'{{"url": "{path.as_uri()}", "archive_info": {{}}}}')
    assert shlex.split(obtain.command("sim")) == ["pip", "install", f"{path}[sim]"]


def test_a_checkout_is_installed_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, f'{{"url": "{tmp_path.as_uri()}", "dir_info": {{"editable": true}}}}')
    assert obtain.command("dns") == f"pip install -e '{tmp_path}[dns]'"


@pytest.mark.parametrize("origin", [None, '{"url": "file:///nowhere/skylb-1.2.3.whl", "archive_info": {}}'])
def test_a_wheel_that_is_gone_is_named_without_a_directory(
    monkeypatch: pytest.MonkeyPatch, origin: str | None
) -> None:
    installed(monkeypatch, origin)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    wheel = "skylb-1.2.3-cp311-abi3-manylinux_2_28_aarch64.whl"
    assert obtain.command("sim") == f"pip install './{wheel}[sim]'"


def test_a_checkout_that_is_not_installed_is_named_as_the_directory_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(name: str) -> Recorded:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(obtain, "PUBLISHED", False)
    monkeypatch.setattr(obtain, "distribution", none)
    assert obtain.command("sim") == "pip install '.[sim]'"


def test_a_published_version_is_installed_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obtain, "PUBLISHED", True)
    assert obtain.command("sim") == "pip install 'skylb[sim]'"


def test_a_message_names_the_library_and_the_line_that_installs_it() -> None:
    assert missing("boto3") == f"boto3 is not installed: {obtain.command('route53')}"
    with pytest.raises(KeyError):
        missing("nothing")
