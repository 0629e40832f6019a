"""Programs to compare with and to build with, each set of them in an environment of its own outside the tree.

    python -m bench.environments peers litellm

installs what the lock files name, unless it is there already. Status 1: something could not be installed.
"""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.record import ROOT

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "skylb"
LOCKS = {"peers": "bench.txt", "litellm": "litellm.txt", "load": "load.txt", "dist": "dist.txt"}
"""The lock file of each environment."""

STAMP = ".installed"
INSTALL_TIMEOUT_S = 1200.0


def directory(name: str) -> Path:
    """Where an environment is, or would be."""
    return CACHE / name


def version(name: str, package: str) -> str:
    """The version of a package that the lock file of an environment names; empty if it names none."""
    text = (ROOT / "requirements" / LOCKS[name]).read_text()
    found = re.search(rf"^{re.escape(package)}==(\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def install(name: str) -> str | None:
    """Makes an environment what its lock file says, if it is not; why it cannot, in one line."""
    lock = ROOT / "requirements" / LOCKS[name]
    stamp = directory(name) / STAMP
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return None
    print(f"== {directory(name)}", flush=True)
    pip = [str(directory(name) / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    steps = (
        [sys.executable, "-m", "venv", str(directory(name))],
        [*pip, "--disable-pip-version-check", "--require-hashes", "-r", str(lock)],
    )
    for step in steps:
        try:
            ended = subprocess.run(
                step, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            return f"not installed in {INSTALL_TIMEOUT_S:g} s"
        if ended.returncode:
            return reason(f"{ended.stdout}\n{ended.stderr}")
    stamp.write_text(digest)
    return None


def reason(output: str) -> str:
    """What went wrong, from what pip said: its last error, without addresses."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    last = (errors or lines or ["no reason given"])[-1]
    return re.sub(r"\S+://\S+|host='[^']*'", "(address)", last)[:300]


def main(names: Sequence[str]) -> int:
    """Installs all; says what could not be."""
    status = 0
    for name in names:
        why = install(name)
        if why is not None:
            print(f"{name}: {why}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
