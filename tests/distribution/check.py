"""Checks what ``make dist`` has built: files, metadata, symbols, the stable ABI, and that each wheel runs.

    python -m tests.distribution.check [MACHINE...]

Runs in the environment of the tools (requirements/dist.txt). Status 1: a fault, and every fault is named.
"""

import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path

from packaging.metadata import Metadata
from packaging.tags import Tag
from packaging.utils import parse_sdist_filename, parse_wheel_filename
from trove_classifiers import classifiers

from skylb import obtain
from tests.distribution import contents, emulated

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "dist"
TOOLS = Path(sys.executable).parent


def report(tool: str, *arguments: str | Path) -> dict[str, object]:
    """What a tool says in JSON.

    Raises:
        RuntimeError: it says something else.
    """
    ended = subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=False)
    try:
        found: dict[str, object] = json.loads(ended.stdout)
    except json.JSONDecodeError as error:
        raise RuntimeError(f"{tool}: status {ended.returncode}: {ended.stdout}{ended.stderr}") from error
    return found


def described(metadata: bytes, version: str) -> list[str]:
    """What is wrong with a distribution's metadata, by the standard and by our rules."""
    try:
        Metadata.from_email(metadata, validate=True)
    except ExceptionGroup as error:
        return [str(fault) for fault in error.exceptions]
    return contents.metadata_faults(message_from_bytes(metadata), version, classifiers)


def check_source(version: str) -> list[str]:
    """Looks at the source distribution; its faults."""
    path = OUT / f"{obtain.NAME}-{version}.tar.gz"
    if not path.exists():
        return [f"{path.name}: missing"]
    faults = contents.source_faults(path, ROOT)
    with tarfile.open(path) as archive:
        file = archive.extractfile(f"{path.name.removesuffix('.tar.gz')}/PKG-INFO")
        faults += described(file.read() if file is not None else b"", version)
    if parse_sdist_filename(path.name) != (
        obtain.NAME,
        parse_wheel_filename(f"a-{version}-py3-none-any.whl")[1],
    ):
        faults.append("its name is none of a source distribution")
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB; {verdict(faults)}", flush=True)
    return [f"{path.name}: {fault}" for fault in faults]


def check_wheel(version: str, machine: str) -> list[str]:
    """Looks at a wheel; its faults."""
    path = OUT / obtain.wheel(version, machine)
    if not path.exists():
        return [f"{path.name}: missing"]
    faults = contents.wheel_faults(path, machine, ROOT)
    if parse_wheel_filename(path.name)[3] != {Tag("cp311", "abi3", f"manylinux_2_28_{machine}")}:
        faults.append("its name has other tags than its rule")
    with zipfile.ZipFile(path) as archive:
        faults += described(archive.read(f"{obtain.NAME}-{version}.dist-info/METADATA"), version)
    symbols = report("auditwheel", "show", "--json", path)
    faults += contents.symbol_faults(symbols, machine)
    faults += contents.abi_faults(report("abi3audit", "--strict", "--report", path))
    glibc = ".".join(map(str, contents.glibc_of(symbols["versioned_symbols"])))
    about = f"{path.stat().st_size / 1e6:.1f} MB, {machine}, glibc >= {glibc}, abi3 of Python 3.11"
    print(f"{path.name}: {about}; {verdict(faults)}", flush=True)
    if not faults:
        ran = emulated.run(path, machine, TOOLS / "python")
        print(f"{path.name}: {ran.said}", flush=True)
        faults += ran.faults
    return [f"{path.name}: {fault}" for fault in faults]


def verdict(faults: Sequence[str]) -> str:
    """The faults, or that there are none."""
    return "files, metadata, symbols and tags are right" if not faults else f"{len(faults)} faults"


def main(machines: Sequence[str]) -> int:
    """Looks at everything; says what is wrong."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    faults = check_source(version)
    for machine in machines:
        faults += check_wheel(version, machine)
    expected = {f"{obtain.NAME}-{version}.tar.gz", *(obtain.wheel(version, machine) for machine in machines)}
    faults += contents.differences({path.name for path in OUT.iterdir()}, expected)
    print("".join(f"  {fault}\n" for fault in faults), end="")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
