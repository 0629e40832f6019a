"""What a distribution must hold: each rule takes what an archive has and answers its faults."""

import tarfile
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any

from skylb import obtain

GLIBC_MAX = (2, 28)

ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
"""``e_machine`` of the ELF header: EM_X86_64 and EM_AARCH64."""

BUILT = "skylb/_core.abi3.so"

SOURCE_ROOT = frozenset({"Cargo.lock", "Cargo.toml", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"})
"""The files of a source distribution beside ``python`` and ``rust``."""


def package_files(tree: Path) -> set[str]:
    """The files of the package in a checkout, named as in a wheel; what was built there is none of them."""
    package = tree / "python" / "skylb"
    paths = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(package.parent).as_posix() for path in paths if path.suffix != ".so"}


def rust_files(tree: Path) -> set[str]:
    """The sources of the crate in a checkout."""
    return {path.relative_to(tree).as_posix() for path in (tree / "rust" / "src").rglob("*.rs")}


def differences(found: Collection[str], expected: Collection[str]) -> Iterator[str]:
    """What is missing and what is too much."""
    yield from (f"{name}: missing" for name in sorted(set(expected) - set(found)))
    yield from (f"{name}: does not belong here" for name in sorted(set(found) - set(expected)))


def wheel_faults(path: Path, machine: str, tree: Path) -> list[str]:
    """What is wrong with the files of a wheel, except with what its metadata and its binary need."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        binary = archive.read(BUILT) if BUILT in names else b""
    information = f"{'-'.join(path.name.split('-')[:2])}.dist-info"
    faults = list(
        differences(
            {name for name in names if not name.startswith(information)}, package_files(tree) | {BUILT}
        )
    )
    if f"{information}/licenses/LICENSE" not in names:
        faults.append("LICENSE: missing")
    return faults + binary_faults(binary, machine, [tree, Path.home()])


def binary_faults(binary: bytes, machine: str, private: Sequence[Path]) -> list[str]:
    """What an extension module's own bytes tell: for which machine it is, and where it was built.

    Args:
        binary: the bytes.
        machine: it is to be for.
        private: directories of the machine that built it.
    """
    faults = []
    if binary[:4] != b"\x7fELF" or int.from_bytes(binary[18:20], "little") != ELF_MACHINES[machine]:
        faults.append(f"{BUILT}: is no ELF file for {machine}")
    said = [str(path) for path in private if f"{path}/".encode() in binary]
    return faults + [f"{BUILT}: holds paths below {path}, where it was built" for path in said]


def source_faults(path: Path, tree: Path) -> list[str]:
    """What is wrong with the files of a source distribution."""
    with tarfile.open(path) as archive:
        names = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}
    package = {f"python/{name}" for name in package_files(tree)}
    return list(differences(names, package | rust_files(tree) | SOURCE_ROOT))


# ------------------------------------------------------------------------------- metadata


def metadata_faults(metadata: Message, version: str, known_classifiers: Collection[str]) -> list[str]:
    """What is missing or wrong in a distribution's metadata."""
    faults = [
        f"{name}: {metadata[name]!r}: expected {expected!r}"
        for name, expected in {
            "Name": obtain.NAME,
            "Version": version,
            "License-Expression": "Apache-2.0",
            "License-File": "LICENSE",
            "Requires-Python": ">=3.11",
        }.items()
        if metadata[name] != expected
    ]
    faults += [f"{name}: missing" for name in ("Summary", "Keywords", "Project-URL") if not metadata[name]]
    extras = set(metadata.get_all("Provides-Extra") or ())
    faults += [f"extra {fault}" for fault in differences(extras, set(obtain.EXTRAS.values()))]
    classifiers = metadata.get_all("Classifier") or []
    faults += [f"classifier {name!r}: unknown" for name in classifiers if name not in known_classifiers]
    versions = {f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 15)}
    faults += [f"classifier {name!r}: missing" for name in sorted(versions - set(classifiers))]
    if any(name.startswith("License ::") for name in classifiers):
        faults.append("classifier of a license: expected only License-Expression (PEP 639)")
    return faults


# ---------------------------------------------------------------------------------- tools


def glibc_of(versioned_symbols: Mapping[str, Sequence[str]]) -> tuple[int, ...]:
    """The newest version of glibc that some symbol needs, from the report of ``auditwheel show --json``."""
    found = (
        tuple(map(int, symbol.removeprefix("GLIBC_").split(".")))
        for symbols in versioned_symbols.values()
        for symbol in symbols
        if symbol.startswith("GLIBC_")
    )
    return max(found, default=())


def symbol_faults(report: Mapping[str, Any], machine: str) -> list[str]:
    """What ``auditwheel show --json`` says against a wheel."""
    faults = []
    needs, tag = glibc_of(report["versioned_symbols"]), obtain.TAG.removeprefix("cp311-abi3-")
    if not needs or needs > GLIBC_MAX:
        faults.append(f"needs glibc {'.'.join(map(str, needs))}: expected at most 2.28")
    if report["overall_tag"] != f"{tag}_{machine}":
        faults.append(f"deserves the tag {report['overall_tag']}: expected {tag}_{machine}")
    if report["external_libs"]:
        faults.append(f"needs libraries that not every system has: {', '.join(report['external_libs'])}")
    return faults


def abi_faults(report: Mapping[str, Any]) -> list[str]:
    """What ``abi3audit --report`` says against the wheels that it looked at."""
    faults = []
    for path, spec in report["specs"].items():
        name = Path(path).name
        results = [(part["name"], part["result"]) for part in spec.get("wheel", ())]
        if not results:
            faults.append(f"{name}: no extension module was audited")
        faults += [
            f"{name}: {part}: is not abi3 of Python 3.11: {result}"
            for part, result in results
            if not (
                result["is_abi3"] and result["is_abi3_baseline_compatible"] and result["baseline"] == "3.11"
            )
        ]
    return faults
