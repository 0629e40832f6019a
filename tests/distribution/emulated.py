"""Runs a wheel: in a bare environment, or under qemu with Debian's Python if it is for another machine.

Nothing is installed on this machine. Packages of Debian are unpacked in the cache; where they cannot be had,
the wheel is not run, and the text says why.
"""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "skylb"
SMOKE = Path(__file__).with_name("smoke.py")

DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
"""Debian's names of machines."""

PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:")

TIMEOUT_S = 1200.0


@dataclass(frozen=True)
class Ran:
    """What came of running a wheel.

    Attributes:
        said: a sentence for people.
        faults: of the wheel, or of what it depends on; that there is no emulator here is none.
    """

    said: str
    faults: list[str] = field(default_factory=list)


class UnableError(Exception):
    """Something cannot be done here; the text says what and why."""


def run(wheel: Path, machine: str, python: Path) -> Ran:
    """Installs a wheel with what it depends on into a temporary directory, and runs it there.

    Args:
        wheel: its file.
        machine: it is for.
        python: an interpreter of this machine that has pip.
    """
    said, command, chosen = "ran", [str(python)], list[str]()
    try:
        if machine != os.uname().machine:
            emulator, root = _foreign(machine)
            interpreter = _interpreter(root)
            said, command = (
                f"ran under {_version(emulator)}",
                [str(emulator), "-L", str(root), str(interpreter)],
            )
            chosen = _platform(machine, interpreter.name.removeprefix("python"))
    except UnableError as error:
        return Ran(f"NOT RUN: {error}. Its files, symbols and tags were checked, and nothing else")
    with tempfile.TemporaryDirectory(prefix="skylb-dist-") as site:
        try:
            _must("pip", [str(python), *PIP, "--target", site, *chosen, str(wheel)])
            ended = _call([*command, str(SMOKE)], {"PYTHONPATH": site, "PYTHONDONTWRITEBYTECODE": "1"})
        except UnableError as error:
            return Ran("does not install or run", [str(error)])
    if ended.returncode:
        return Ran("does not run", [f"does not run: {(ended.stdout + ended.stderr)[-2000:]}"])
    found = json.loads(ended.stdout)
    if found["machine"] != machine:
        return Ran("ran elsewhere", [f"ran on {found['machine']}: expected {machine}"])
    return Ran(f"{said} on Python {found['python']} ({machine}), and simulated {found['simulated']} requests")


def _interpreter(root: Path) -> Path:
    """Python of a foreign system; Debian has one version at a time."""
    found = [path for path in root.glob("usr/bin/python3.*") if path.name.removeprefix("python3.").isdigit()]
    if not found:
        raise UnableError("Debian's packages for it hold no Python")
    return found[0]


def _call(
    command: Sequence[str], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env=os.environ | (environment or {}),
            timeout=TIMEOUT_S,
        )
    except OSError as error:
        raise UnableError(f"{command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise UnableError(f"{command[0]}: not done in {TIMEOUT_S:g} s") from error


def _must(what: str, command: Sequence[str]) -> str:
    ended = _call(command)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UnableError(f"{what}: {last}")
    return ended.stdout


def _platform(machine: str, version: str) -> list[str]:
    """Flags with which pip chooses wheels for another machine."""
    tags = [f"manylinux_2_28_{machine}", f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"]
    return [flag for tag in tags for flag in ("--platform", tag)] + [
        *("--implementation", "cp", "--python-version", version),
    ]


def _version(emulator: Path) -> str:
    return " ".join(_must("qemu", [str(emulator), "--version"]).split()[:3:2])


# ---------------------------------------------------------------------- Debian's packages


def _foreign(machine: str) -> tuple[Path, Path]:
    """An emulator, and the root of a foreign system with Python; unpacked once.

    Raises:
        UnableError: they are not to be had here.
    """
    for tool in ("apt-get", "dpkg", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UnableError(f"{tool} is not here, and qemu and Python for {machine} are taken from Debian")
    place = CACHE / f"dist-{machine}"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root, tools = place / "root", place / "tools"
        if not (place / ".ready").exists():
            _fetch(place, root, tools, machine)
            (place / ".ready").touch()
    return tools / "usr" / "bin" / f"qemu-{machine}-static", root


def _fetch(place: Path, root: Path, tools: Path, machine: str) -> None:
    """Asks Debian's mirrors with lists and a cache of our own: the system's are left alone."""
    foreign, own = DEBIAN[machine], _must("dpkg", ["dpkg", "--print-architecture"]).strip()
    for name in ("state/lists/partial", "cache/archives/partial"):
        (place / "apt" / name).mkdir(parents=True, exist_ok=True)
    (place / "apt" / "state" / "status").touch()
    options = {
        "APT::Architecture": own,
        "APT::Architectures::": f"{own},{foreign}",
        "APT::Sandbox::User": "root",
        "Dir::State": place / "apt" / "state",
        "Dir::State::status": place / "apt" / "state" / "status",
        "Dir::Cache": place / "apt" / "cache",
    }
    apt = ["apt-get", "--quiet"]
    for name, value in options.items():
        for part in str(value).split(","):
            apt += ["-o", f"{name}={part}"]
    _must("apt-get update", [*apt, "update"])
    flags = ["--yes", "--no-install-recommends", "--download-only", "install"]
    for package, into in ((f"python3:{foreign}", root), (f"qemu-user-static:{own}", tools)):
        _must(f"apt-get install {package}", [*apt, *flags, package])
        for file in sorted((place / "apt" / "cache" / "archives").glob("*.deb")):
            _must(f"dpkg-deb of {file.name}", ["dpkg-deb", "--extract", str(file), str(into)])
            file.unlink()
    shutil.rmtree(place / "apt")
