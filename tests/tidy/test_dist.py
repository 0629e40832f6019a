"""What is said about installing SkyLB agrees with one module. What checks a distribution notices faults."""

import os
import re
import tarfile
import tomllib
import zipfile
from email.message import Message
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from skylb import obtain
from tests.distribution import build, contents, pages
from tests.tidy.test_architecture import ROOT, tracked

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION: str = PROJECT["project"]["version"]
INSTALL = ROOT / "docs" / "INSTALL.md"
TEXTS = {".md", ".py", ".toml", ".yaml", ".yml", ".txt", ".sh", ".service"}
WALKED = ("docs/INSTALL.md", "README.md")
"""Pages whose commands ``make test-dist`` runs."""

_BY_NAME = re.compile(
    r"(?<![\w-])(?:install|inject|add)\s(?:-\S+\s)*['\"]?skylb(?![\w./-])|(?<![\w./-])skylb\[\w"
)
"""An installation by the name alone, or the name with an extra."""


# ----------------------------------------------------------------------- what texts say


def installed_by_name(text: str) -> list[str]:
    return [match[0] for match in _BY_NAME.finditer(text)]


def test_texts_install_skylb_as_it_can_be_had() -> None:
    here = Path(__file__)
    paths = [path for path in tracked() if path.suffix in TEXTS or path.name == "Containerfile"]
    found = {
        f"{path.relative_to(ROOT)}: {said}"
        for path in paths
        if path not in {here, ROOT / "tests" / "unit" / "test_obtain.py"}
        for said in installed_by_name(path.read_text())
    }
    assert obtain.PUBLISHED or found == set(), "the package index has no SkyLB: name a wheel's path"


NOT_YET = "SkyLB is in no package index yet."


def install_faults(page: str, *, published: bool) -> list[str]:
    """What INSTALL.md says that does not agree with `obtain.PUBLISHED`."""
    faults = []
    if (NOT_YET in page) == published:
        faults.append(f"{NOT_YET!r}: {'no longer so' if published else 'missing'}")
    if published and not installed_by_name(page):
        faults.append("missing: the installation by name")
    return faults


def test_the_page_says_whether_there_is_a_release() -> None:
    assert install_faults(INSTALL.read_text(), published=obtain.PUBLISHED) == []


def test_a_page_that_does_not_follow_a_release_is_found() -> None:
    page = INSTALL.read_text()
    assert len(install_faults(page, published=not obtain.PUBLISHED)) == 2 - obtain.PUBLISHED
    assert install_faults("```\npip install skylb\n```\n", published=True) == []


@pytest.mark.parametrize(
    "planted",
    [
        "pip install skylb",
        "pip install -U 'skylb[sim]'",
        "pipx install skylb\n",
        "uv add skylb",
        "needs skylb[sim]",
    ],
)
def test_a_planted_installation_by_name_is_found(planted: str) -> None:
    assert installed_by_name(planted) != []


@pytest.mark.parametrize(
    "harmless",
    [
        "pip install './dist/skylb-0.1.0.whl[sim]'",
        "pip uninstall --yes skylb",
        "add skylb-x",
        "[skylb](a.md)",
    ],
)
def test_a_path_is_no_name(harmless: str) -> None:
    assert installed_by_name(harmless) == []


def test_the_pages_name_the_files_that_make_dist_builds() -> None:
    named = set(re.findall(r"skylb-\d[\w.-]*?\.(?:whl|tar\.gz)", INSTALL.read_text()))
    assert named == {obtain.wheel(VERSION, "x86_64"), f"skylb-{VERSION}.tar.gz"}


def test_the_version_is_written_alike() -> None:
    assert tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"] == VERSION


# ------------------------------------------------------------------------------- extras


def names(requirements: list[str]) -> set[str]:
    """The packages of requirements."""
    return {re.split(r"[^\w-]", requirement, maxsplit=1)[0] for requirement in requirements}


def test_every_extra_is_known_to_the_messages_and_in_the_table() -> None:
    extras: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    assert {library: extra for extra, found in extras.items() for library in names(found)} == obtain.EXTRAS
    rows = re.findall(r"^\| `(\w+)` \| ([\w-]+) \|", INSTALL.read_text(), re.MULTILINE)
    assert {library: extra for extra, library in rows} == obtain.EXTRAS


def test_what_only_developers_need_is_in_no_extra() -> None:
    groups: dict[str, list[str]] = PROJECT["dependency-groups"]
    users = {name for found in PROJECT["project"]["optional-dependencies"].values() for name in names(found)}
    assert {name for found in groups.values() for name in names(found)} & users == set()


def test_no_group_is_one_that_maturin_installs_unasked() -> None:
    assert "dev" not in PROJECT["dependency-groups"]


def test_every_group_and_every_extra_is_locked() -> None:
    makefile = (ROOT / "Makefile").read_text()
    locked = set(re.findall(r"--(?:group|extra) (\w+)", makefile))
    assert locked == {*PROJECT["dependency-groups"], *PROJECT["project"]["optional-dependencies"]}


# ------------------------------------------------------------------- commands of a page


@pytest.mark.parametrize("page", WALKED)
def test_the_commands_of_a_page_are_found(page: str) -> None:
    found = list(pages.commands((ROOT / page).read_text()))
    lines = (ROOT / page).read_text().splitlines()
    assert all(lines[command.line - 1].startswith(command.text.partition(" ")[0]) for command in found)
    assert {"mock", "serve"} <= {command.serves for command in found}


def test_blocks_of_other_text_are_no_commands() -> None:
    text = "```\n client   SkyLB\n```\n\n```toml\na = 1\n```\n\n```\n# note\n"
    text += "make x  # builds\n\nskylb \\\n  sim chat\n```\n"
    assert [(command.text, command.line) for command in pages.commands(text)] == [
        ("make x  # builds", 11),
        ("skylb   sim chat", 13),
    ]


@pytest.mark.parametrize("block", ["make x\nfrobnicate y\n", "cd dist\nmake x\n"])
def test_a_block_that_cannot_be_run_line_by_line_is_a_fault(block: str) -> None:
    with pytest.raises(ValueError, match=r"line [23]: .*: expected"):
        list(pages.commands(f"```\n{block}```\n"))


@pytest.mark.parametrize(
    ("text", "serves", "local"),
    [
        (".venv/bin/skylb mock --count 2", "mock", True),
        ("skylb serve --replica http://127.0.0.1:1", "serve", True),
        ("skylb serve --help", "", True),
        ("skylb demo --duration-s 5", "", True),
        ("make demo", "demo", True),
        ("make demo DEMO_S=5", "", False),
        ("make setup", "", False),
        ("(cd dist && sha256sum --check SUMS)", "", False),
        ("~/skylb/bin/pip install x", "", False),
    ],
)
def test_what_serves_runs_until_it_is_stopped(text: str, serves: str, local: bool) -> None:
    command = pages.Command(text, 1)
    assert (command.serves, command.local) == (serves, local)


def test_what_a_program_says_to_try_is_found() -> None:
    assert pages.to_try("ready\ntry: curl -N http://a\n") == ["curl -N http://a"]


# ----------------------------------------------------------------------------- building


def lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rustup: str | None) -> str:
    """What building for a machine whose standard library is not there ends with.

    Args:
        tmp_path: for programs.
        monkeypatch: sets the PATH.
        rustup: a script, or none.
    """
    scripts = {"rustc": f"echo {tmp_path}/nowhere", "rustup": rustup}
    for name, script in scripts.items():
        if script is not None:
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.MissingError) as error:
        build.ensure_standard_library("aarch64")
    return str(error.value)


def test_without_rustup_the_message_says_what_is_missing_and_what_can_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = lacking(tmp_path, monkeypatch, None)
    assert said.startswith(
        "Rust's standard library for aarch64-unknown-linux-gnu is missing, and so is rustup"
    )
    assert f"`make dist MACHINES={os.uname().machine}`" in said


def test_rustup_that_cannot_add_a_machine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = lacking(tmp_path, monkeypatch, '[ "$*" = "target add aarch64-unknown-linux-gnu" ] && exit 1')
    assert said.startswith("rustup could not add aarch64-unknown-linux-gnu")


def test_an_unknown_machine_is_a_fault_that_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["riscv64"]) == 1
    said = capsys.readouterr().err
    assert said == "make dist: MACHINES=riscv64: expected some of x86_64 aarch64\n"


def test_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "b.whl").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert build.sums([tmp_path / "b.whl"]) == f"{digest}  b.whl\n"


# ---------------------------------------------------------------------- a distribution

ELF = b"\x7fELF\2\1\1" + bytes(9) + (3).to_bytes(2, "little")


def binary(machine: str, said: bytes = b"") -> bytes:
    return ELF + contents.ELF_MACHINES[machine].to_bytes(2, "little") + bytes(44) + said


def tree(tmp_path: Path) -> Path:
    """A checkout with two files of the package and one of the crate."""
    for name in ("python/skylb/__init__.py", "python/skylb/tools/chat.toml", "rust/src/lib.rs"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "python" / "skylb" / "_core.abi3.so").touch()
    return tmp_path


PACKAGED = ("skylb/__init__.py", "skylb/tools/chat.toml", "skylb-1.dist-info/licenses/LICENSE")


def wheel_of(tmp_path: Path, files: tuple[str, ...], core: bytes) -> Path:
    path = tmp_path / "skylb-1-cp311-abi3-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in files:
            archive.writestr(name, "")
        archive.writestr(contents.BUILT, core)
    return path


def test_a_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    here = tree(tmp_path)
    assert contents.wheel_faults(wheel_of(tmp_path, PACKAGED, binary("x86_64")), "x86_64", here) == []
    other = wheel_of(
        tmp_path, ("skylb/__init__.py", "tests/a.py"), binary("aarch64", f"at {here}/a.rs".encode())
    )
    assert contents.wheel_faults(other, "x86_64", here) == [
        "skylb/tools/chat.toml: missing",
        "tests/a.py: does not belong here",
        "LICENSE: missing",
        "skylb/_core.abi3.so: is no ELF file for x86_64",
        f"skylb/_core.abi3.so: holds paths below {here}, where it was built",
    ]


def test_a_source_distribution_holds_what_builds_and_nothing_else(tmp_path: Path) -> None:
    here = tree(tmp_path)
    path = tmp_path / "skylb-1.tar.gz"
    files = {*contents.SOURCE_ROOT, "python/skylb/__init__.py", "rust/src/lib.rs", "bench/results/a.md"}
    with tarfile.open(path, "w:gz") as archive:
        for name in sorted(files - {"Cargo.lock"}):
            archive.addfile(tarfile.TarInfo(f"skylb-1/{name}"), BytesIO())
    assert contents.source_faults(path, here) == [
        "Cargo.lock: missing",
        "python/skylb/tools/chat.toml: missing",
        "bench/results/a.md: does not belong here",
    ]


def described(*changes: tuple[str, str]) -> Message:
    """Metadata without faults, and then with changes: an empty value takes a field away."""
    found = Message()
    fields = [
        ("Name", "skylb"),
        ("Version", "1"),
        ("License-Expression", "Apache-2.0"),
        ("License-File", "LICENSE"),
        ("Requires-Python", ">=3.11"),
        ("Summary", "x"),
        ("Keywords", "x"),
        ("Project-URL", "x"),
        *(("Provides-Extra", extra) for extra in obtain.EXTRAS.values()),
        *(("Classifier", f"Programming Language :: Python :: 3.{minor}") for minor in range(11, 15)),
    ]
    for name, value in fields:
        found[name] = value
    for name, value in changes:
        if value:
            found[name] = value
        else:
            del found[name]
    return found


KNOWN = frozenset(described().get_all("Classifier") or ())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("Keywords", ""), "Keywords: missing"),
        (("Version", ""), "Version: None: expected '1'"),
        (("Provides-Extra", "bench"), "extra bench: does not belong here"),
        (("Classifier", "Nothing :: Known"), "classifier 'Nothing :: Known': unknown"),
        (("Provides-Extra", ""), "extra dns: missing"),
        (("Classifier", ""), "classifier 'Programming Language :: Python :: 3.11': missing"),
    ],
)
def test_a_fault_of_the_metadata_is_found(change: tuple[str, str], fault: str) -> None:
    assert contents.metadata_faults(described(), "1", KNOWN) == []
    assert contents.metadata_faults(described(change), "1", KNOWN)[0] == fault


def report(symbol: str, tag: str = "manylinux_2_28_aarch64", libs: tuple[str, ...] = ()) -> dict[str, Any]:
    versions = {"libc.so.6": ["GLIBC_2.17", symbol], "libgcc_s.so.1": ["GCC_3.0"]}
    return {"versioned_symbols": versions, "overall_tag": tag, "external_libs": dict.fromkeys(libs, "")}


def test_a_symbol_of_a_newer_glibc_is_found() -> None:
    assert contents.symbol_faults(report("GLIBC_2.28"), "aarch64") == []
    assert contents.symbol_faults(
        report("GLIBC_2.34", "manylinux_2_34_aarch64", ("libssl.so.3",)), "aarch64"
    ) == [
        "needs glibc 2.34: expected at most 2.28",
        "deserves the tag manylinux_2_34_aarch64: expected manylinux_2_28_aarch64",
        "needs libraries that not every system has: libssl.so.3",
    ]


def test_a_module_that_leaves_the_stable_abi_is_found() -> None:
    good = {"is_abi3": True, "is_abi3_baseline_compatible": True, "baseline": "3.11"}
    bad = good | {"is_abi3_baseline_compatible": False}
    specs = {
        name: {"wheel": [{"name": "x.so", "result": result}]}
        for name, result in {"a": good, "b": bad}.items()
    }
    found = contents.abi_faults({"specs": specs | {"c": {}}})
    assert [fault.partition(":")[0] for fault in found] == ["b", "c"]
