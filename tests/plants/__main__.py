"""``make plants``: plants each bug of `bugs.toml` in a copy of the sources, and sees its test fail.

A bug that no test notices is told, and the status is 1. Each test is run without the bug first: one that
fails anyway proves nothing.

    python -m tests.plants [NAME ...]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("bugs.toml")
COPY = ROOT / "target" / "plants"
"""At one place, so that only what differs is compiled again."""

TEST_S = 600.0


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug, and the test that must notice it."""

    name: str
    file: str
    find: str
    put: str
    test: str

    def planted(self, text: str) -> str:
        """The source with the bug.

        Raises:
            ValueError: the source is another one by now.
        """
        if text.count(self.find) != 1:
            raise ValueError(f"{self.name}: {self.file} has {text.count(self.find)} times: {self.find!r}")
        return text.replace(self.find, self.put)

    @property
    def command(self) -> list[str]:
        """What runs the test: pytest's, or one of the core by its name."""
        if self.test.startswith("cargo test "):
            return ["cargo", "test", "--locked", "--quiet", "--lib", self.test.removeprefix("cargo test ")]
        return [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", self.test]


def bugs() -> list[Bug]:
    """All of the list, in order."""
    return [Bug(**row) for row in tomllib.loads(LIST.read_text())["bug"]]


def copy() -> None:
    """Brings the copy up to date; files that did not change keep their times."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        source, target = ROOT / name, COPY / name
        if not source.exists() or source.is_symlink():
            continue
        if target.exists() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        shutil.copymode(source, target)
    core = "python/skylb/_core.abi3.so"
    shutil.copyfile(ROOT / core, COPY / core)


def passes(bug: Bug) -> bool:
    """Whether the bug's test passes in the copy as it is."""
    environment = os.environ | {
        "PYTHONPATH": f"{COPY / 'python'}{os.pathsep}{COPY}",
        "CARGO_TARGET_DIR": str(COPY / "target"),
        "PROPTEST_RNG_SEED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        bug.command, cwd=COPY, env=environment, capture_output=True, text=True, timeout=TEST_S, check=False
    )
    if done.returncode not in (0, 1, 101):  # 1: pytest's failures, 101: those of cargo test
        raise RuntimeError(f"{' '.join(bug.command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    if "could not compile" in done.stderr:
        raise RuntimeError(f"{bug.name}: does not compile\n{done.stderr}")
    return done.returncode == 0


def noticed(bug: Bug) -> bool:
    """Whether the test fails with the bug; the copy is as before then."""
    path = COPY / bug.file
    text = path.read_text()
    path.write_text(bug.planted(text))
    try:
        return not passes(bug)
    finally:
        path.write_text(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plants all, or those that are named; the status."""
    parser = argparse.ArgumentParser(prog="tests.plants")
    parser.add_argument("name", nargs="*", help="a part of the name of a bug")
    wanted = parser.parse_args(arguments).name
    chosen = [bug for bug in bugs() if not wanted or any(part in bug.name for part in wanted)]
    copy()
    sound: dict[str, bool] = {}
    missed = 0
    for bug in chosen:
        if bug.test not in sound:
            sound[bug.test] = passes(bug)
        if not sound[bug.test]:
            verdict = "FAILS WITHOUT IT TOO"
        else:
            verdict = "noticed" if noticed(bug) else "MISSED"
        missed += verdict != "noticed"
        print(f"{verdict:8} {bug.name} ({bug.test})", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} noticed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
