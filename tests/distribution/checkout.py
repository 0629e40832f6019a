"""A clean clone of the committed tree, in one place outside it, so that cargo finds what it has compiled."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "skylb"


OURS = ("MAKE", "MFLAGS", "PIPX_", "PYTEST", "PYTHON", "SKYLB", "UV_TOOL", "VIRTUAL_ENV", "XDG_")
"""Beginnings of variables that a stranger does not have, or that lead to our home directory."""


@dataclass(frozen=True)
class Checkout:
    """A clone and a stranger's home directory.

    Attributes:
        tree: the clone.
        home: an empty home directory.
        environment: in which commands run there; registries and toolchains are those of this machine.
    """

    tree: Path
    home: Path
    environment: dict[str, str]


def git(*words: str | Path) -> str:
    """What git prints about this tree."""
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout


@contextmanager
def clone() -> Iterator[Checkout]:
    """Makes one, and takes it away; one test run at a time.

    Raises:
        CalledProcessError: this tree is no git repository.
    """
    place = CACHE / "dist-clone"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tree, home = place / "tree", place / "home"
        for directory in (tree, home):
            shutil.rmtree(directory, ignore_errors=True)
        home.mkdir()
        git("clone", "--quiet", "--no-local", ROOT, tree)
        try:
            yield Checkout(tree, home, _environment(place, home))
        finally:
            for directory in (tree, home):
                shutil.rmtree(directory, ignore_errors=True)


def _environment(place: Path, home: Path) -> dict[str, str]:
    """That of a stranger with this machine's tools: nothing of make, Python or an environment in use."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    old = Path.home()
    tools = place / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("uv", "pipx"):
        (tools / name).unlink(missing_ok=True)
        (tools / name).symlink_to(CACHE / "dist" / "bin" / name)
    return kept | {
        "HOME": str(home),
        "CARGO_HOME": os.environ.get("CARGO_HOME", str(old / ".cargo")),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(old / ".rustup")),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(old / ".cache")),
        "CARGO_TARGET_DIR": str(place / "target"),
        "PATH": f"{tools}:{home / '.local' / 'bin'}:{os.environ['PATH']}",
    }
