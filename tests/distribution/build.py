"""``make dist``: a source distribution, and from it a wheel for each machine, in ``dist/``.

The wheels are built from the unpacked source distribution, so it builds and they hold nothing else. zig links
them against an old glibc. Status 1: something is missing or wrong, and the last line says what.

    python -m tests.distribution.build [MACHINE...]
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.environments import directory, install

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "dist"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
SUMS = "SHA256SUMS"

MACHINES = ("x86_64", "aarch64")
COMPATIBILITY = "manylinux_2_28"


class MissingError(Exception):
    """This machine lacks something; the text says what to do."""


def target(machine: str) -> str:
    """Rust's name for a machine with Linux and glibc."""
    return f"{machine}-unknown-linux-gnu"


def ensure_standard_library(machine: str) -> None:
    """Adds Rust's standard library for a machine if rustup is there.

    Raises:
        MissingError: rustup is not there, or could not.
    """
    name = target(machine)
    asked = ["rustc", "--print", "target-libdir", "--target", name]
    found = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode == 0 and any(Path(found.stdout.strip()).glob("libstd-*")):
        return
    advice = f"`make dist MACHINES={os.uname().machine}` builds for this machine alone"
    if shutil.which("rustup") is None:
        raise MissingError(
            f"Rust's standard library for {name} is missing, and so is rustup, which adds it: "
            f"install Rust with rustup, or the library as your system packages it. {advice}"
        )
    print(f"== rustup target add {name}", flush=True)
    added = subprocess.run(["rustup", "target", "add", name], cwd=ROOT, check=False)
    if added.returncode:
        raise MissingError(f"rustup could not add {name}. {advice}")


def run(command: Sequence[str | Path], cwd: Path, environment: dict[str, str] | None = None) -> None:
    """Runs a command and shows its output only if it fails.

    Raises:
        MissingError: it failed.
    """
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if ended.returncode:
        sys.stderr.write(ended.stdout + ended.stderr)
        raise MissingError(f"status {ended.returncode}: {' '.join(map(str, command))}")


def source_distribution(maturin: Path) -> Path:
    """Makes it; its path."""
    run([maturin, "sdist", "--out", OUT], ROOT)
    (path,) = OUT.glob("*.tar.gz")
    return path


def unpack(archive: Path, into: Path) -> Path:
    """Unpacks a source distribution into an empty directory; its root.

    Every file becomes as old as now: the archive dates all files alike, and cargo would take changed ones for
    those that it has compiled.
    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    run(["tar", "--extract", "--touch", "--file", archive], into)
    (root,) = into.iterdir()
    return root


def wheel(maturin: Path, source: Path, machine: str) -> None:
    """Builds the wheel for a machine. No path of this machine gets into it."""
    cargo_home = os.environ.get("CARGO_HOME", Path.home() / ".cargo")
    prefixes = [f"--remap-path-prefix={source}=.", f"--remap-path-prefix={cargo_home}=cargo"]
    environment = os.environ | {
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(prefixes),
        "CARGO_TARGET_DIR": str(TARGET),
        "CARGO_ZIGBUILD_PYTHON_PATH": str(maturin.parent / "python"),
        "PATH": f"{maturin.parent}:{os.environ['PATH']}",
    }
    command: list[str | Path] = [maturin, "build", "--release", "--locked", "--zig"]
    command += ["--compatibility", COMPATIBILITY]
    run([*command, "--target", target(machine), "--out", OUT], source, environment)


def sums(paths: Sequence[Path]) -> str:
    """What ``sha256sum --check`` reads."""
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(paths)
    )


def build(machines: Sequence[str]) -> Path:
    """Builds everything; where the tools are.

    Raises:
        MissingError: something is not there, or failed.
    """
    if set(machines) - set(MACHINES):
        raise MissingError(f"MACHINES={' '.join(machines)}: expected some of {' '.join(MACHINES)}")
    for machine in machines:
        ensure_standard_library(machine)
    if why := install("dist"):
        raise MissingError(f"{directory('dist')}: {why}")
    tools = directory("dist") / "bin"
    shutil.rmtree(OUT, ignore_errors=True)
    archive = source_distribution(tools / "maturin")
    source = unpack(archive, TARGET / "dist-source")
    for machine in machines:
        print(f"== wheel for {machine}", flush=True)
        wheel(tools / "maturin", source, machine)
    return tools


def main(machines: Sequence[str]) -> int:
    """Builds everything, checks it, and writes the sums."""
    try:
        tools = build(machines)
    except MissingError as error:
        print(f"make dist: {error}", file=sys.stderr)
        return 1
    check = [tools / "python", "-m", "tests.distribution.check", *machines]
    if subprocess.run(check, cwd=ROOT, check=False).returncode:
        return 1
    (OUT / SUMS).write_text(sums(list(OUT.iterdir())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or MACHINES))
