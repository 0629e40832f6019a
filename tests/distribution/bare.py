"""A bare environment: a wheel and what it depends on, without Rust and without the tree that built it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INSTALL_TIMEOUT_S = 600.0

HIDE = """
for tree do [ "$tree" = -- ] && break; shift; mount -t tmpfs none "$tree" || exit 125; done; shift; exec "$@"
"""
"""Covers the directories before ``--`` with empty ones, for the command after it and no other process."""


@dataclass(frozen=True)
class Bare:
    """An environment in a directory of its own.

    Attributes:
        directory: holds the environment, the wheel and a home directory; commands run there.
        hidden: trees that commands find empty; none where this machine does not allow to hide them.
    """

    directory: Path
    hidden: tuple[Path, ...]

    @property
    def bin(self) -> Path:
        """Its programs: the whole of its PATH."""
        return self.directory / "venv" / "bin"

    def command(self, *words: str | Path) -> list[str]:
        """A command with nothing of our environment."""
        clean = [
            "env",
            "-i",
            f"--chdir={self.directory}",
            f"PATH={self.bin}",
            f"HOME={self.directory}",
            "LANG=C.UTF-8",
        ]
        inside = [*clean, *map(str, words)]
        if not self.hidden:
            return inside
        return [*_unshare(), *map(str, self.hidden), "--", *inside]

    def run(self, *words: str | Path, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; its output and status."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, timeout=timeout_s
        )


def _unshare() -> list[str]:
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", HIDE, "hide"]


def can_hide(tree: Path) -> bool:
    """Whether a directory can be hidden from a process here."""
    if shutil.which("unshare") is None:
        return False
    listed = [*_unshare(), str(tree), "--", "ls", "-A", str(tree)]
    ended = subprocess.run(listed, capture_output=True, text=True, check=False)
    return ended.returncode == 0 and not ended.stdout


def make(directory: Path, wheel: Path, hidden: Sequence[Path], python: str = sys.executable) -> Bare:
    """Makes one, with a copy of the wheel.

    Args:
        directory: to make it in.
        wheel: to install; pip may build nothing.
        hidden: trees that its commands are not to see, as far as this machine allows.
        python: an interpreter.

    Raises:
        CalledProcessError: pip failed; its output has been shown.
    """
    copy = Path(shutil.copy2(wheel, directory))
    made = Bare(directory, tuple(tree for tree in hidden if can_hide(tree)))
    subprocess.run([python, "-m", "venv", directory / "venv"], check=True)
    pip = [made.bin / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [*pip, "--only-binary=:all:", str(copy)]
    subprocess.run(command, cwd=directory, env=clean, check=True, timeout=INSTALL_TIMEOUT_S)
    return made
