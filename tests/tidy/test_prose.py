"""Texts that people read: sentences are short, and what is named is there."""

import re
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from skylb.config import Group, Settings
from skylb.keys.command import ListSettings, NewSettings, RevokeSettings
from skylb.tools.demo import DemoSettings
from skylb.tools.load import LoadSettings
from skylb.tools.load.convert import MooncakeSettings
from skylb.tools.mock import MockSettings
from skylb.tools.operate.drain import DrainSettings, RegionSettings
from skylb.tools.operate.peers import PeersSettings
from skylb.tools.operate.state import StateSettings
from skylb.tools.operate.why import WhySettings
from skylb.tools.sim import SimSettings
from skylb.tools.wan import WanSettings
from tests.tidy import prose
from tests.tidy.test_architecture import ROOT, tracked

KEYS = (NewSettings, ListSettings, RevokeSettings)
TOOLS = (MockSettings, LoadSettings, SimSettings, WanSettings, DemoSettings, MooncakeSettings)
ASKS = (PeersSettings, StateSettings, DrainSettings, RegionSettings, WhySettings)
MODELS = (Settings, *TOOLS, *ASKS, *KEYS)
FLAGS = prose.known_flags(MODELS)
PAGES = sorted(path.relative_to(ROOT).as_posix() for glob in prose.PAGES for path in ROOT.glob(glob))
THIS = {"tests/tidy/prose.py", "tests/tidy/test_prose.py"}


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short(page: str) -> None:
    faults = prose.long_sentences((ROOT / page).read_text())
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", PAGES)
def test_machines_are_no_people(page: str) -> None:
    faults = prose.people((ROOT / page).read_text())
    assert not faults, "\n".join(faults)


def test_the_texts_of_modules_are_short_sentences() -> None:
    faults = prose.docstring_faults(ROOT / "python" / "skylb")
    assert not faults, "\n".join(faults)


def test_the_texts_of_rust_modules_are_short_sentences() -> None:
    faults = prose.rust_text_faults(ROOT / "rust" / "src")
    assert not faults, "\n".join(faults)


def test_help_texts_are_short_sentences() -> None:
    faults = prose.help_faults(MODELS)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_what_a_page_names_is_there(page: str) -> None:
    faults = prose.reference_faults(page, (ROOT / page).read_text(), FLAGS)
    assert not faults, "\n".join(faults)


def test_nothing_refers_to_documents_outside() -> None:
    paths = [path for path in tracked() if path.relative_to(ROOT).as_posix() not in THIS]
    faults = prose.outside_faults(ROOT, paths)
    assert not faults, "\n".join(faults)


# ------------------------------------------------------------------------ planted faults

LONG = " ".join(["word"] * 26)


@pytest.mark.parametrize(
    "text",
    [
        f"{LONG}.",
        f"- {LONG}.\n- short",
        f"Short. {LONG}. Short.",
        f"| a | {LONG} |\n|---|---|",
        f"1. x\n   {LONG}\n",
    ],
)
def test_a_planted_long_sentence_is_found(text: str) -> None:
    assert [fault.partition(":")[0] for fault in prose.long_sentences(text)] in (["26 words"], ["27 words"])


def test_a_planted_machine_that_is_told_something_is_found(tmp_path: Path) -> None:
    assert prose.people("Whoever hears it, `told` or not.") == ["'Whoever': Whoever hears it, CODE or not."]
    assert prose.people("It receives `told`.") == []
    (tmp_path / "a.py").write_text(f'"""A peer is told. {LONG}.\n\n::\n\n    {LONG}\n"""\n')
    assert [fault.partition(": ")[2][:8] for fault in prose.docstring_faults(tmp_path)] == [
        "26 words",
        "'told': ",
    ]


def test_a_long_sentence_planted_in_a_rust_module_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.rs").write_text(
        f"//! A [`Link`] and `code`.\n//!\n//! {LONG}.\n\nfn f() {{}}\n// {LONG}\n"
    )
    assert [fault[:14] for fault in prose.rust_text_faults(tmp_path)] == ["a.rs: 26 words"]


class _Planted(Group):
    wait_s: Annotated[float, Field(description="Longest wait. Keep it below idle_max_s.")] = 1.0
    idle_max_s: Annotated[float, Field(description="Longest silence. Keep it above --wait-s.")] = 1.0


def test_a_planted_setting_that_is_not_named_by_its_flag_is_found() -> None:
    assert prose.help_faults((_Planted,)) == ["_Planted: --wait-s: names idle_max_s: write --idle-max-s"]


def test_code_headings_comments_and_targets_of_links_are_no_prose() -> None:
    harmless = (
        f"# {LONG}\n\n```\n{LONG}\n```\n<!-- {LONG} -->\nSee [here](a/{LONG.replace(' ', '/')}), `{LONG}`.\n"
    )
    assert prose.long_sentences(harmless) == []
    assert prose.words("CODE is one, and - is none.") == 6


def test_lines_cells_and_items_are_sentences_of_their_own() -> None:
    text = (
        "One line\ngoes on. Two.\n\n- item\n- `code` item, e.g. this\n\n| a | b |\n|---|---|\n| c d | e |\n"
    )
    assert list(prose.sentences(text)) == [
        "One line goes on.",
        "Two.",
        "item",
        "CODE item, e.g this",
        " a ",
        " b ",
        " c d ",
        " e ",
    ]


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        ("[x](docs/NOWHERE.md)", "link to docs/NOWHERE.md: there is no such file"),
        ("[x](docs/GLOSSARY.md#nothing)", "link to docs/GLOSSARY.md#nothing: there is no such heading"),
        ("[x](#nothing)", "link to #nothing: there is no such heading"),
        ("see `python/skylb/nothing.py`", "python/skylb/nothing.py: there is no such file"),
        ("set `--no-such-flag`", "--no-such-flag is no flag"),
        (
            "`tests/tidy/test_prose.py::test_nothing`",
            "tests/tidy/test_prose.py::test_nothing: there is no such test",
        ),
        ("`test_no_such.py`", "test_no_such.py: there is no such file"),
        ("`cargo test no_such_test_is_there`", "cargo test no_such_test_is_there: there is no such test"),
    ],
)
def test_a_planted_dangling_reference_is_found(planted: str, fault: str) -> None:
    assert prose.reference_faults("README.md", f"# A\n\n{planted}\n", FLAGS) == [f"README.md: {fault}"]


def test_references_that_stand_are_no_faults() -> None:
    text = "# A b\n\n[x](#a-b) [y](docs/GLOSSARY.md#glossary) `--listen` `tests/tidy/*.py` `--engine-*` https://x/docs/y\n"
    assert prose.reference_faults("README.md", text, FLAGS) == []


def test_a_planted_reference_to_a_document_outside_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text('"""As REL' + 'IABILITY R7 says."""\n')
    assert prose.outside_faults(tmp_path, [path]) == ["a.py:1: REL" + "IABILITY is not in the repository"]
    path.write_text("# see docs/GLOSSARY.md and " + "docs/NOWHERE.md\n")
    assert prose.outside_faults(tmp_path, [path]) == ["a.py: docs/NOWHERE.md is not in the repository"]


_QUOTED = re.compile(r"\[[^\]]*\d[^\]]*\]\(\.\./bench/results/|\(\.\./bench/results/[^)]*\)[^|`]*\d")
"""A figure in a link to a file of results, or behind it in its cell."""


def test_promises_name_the_file_of_their_figures_and_repeat_none() -> None:
    assert _QUOTED.findall((ROOT / "docs" / "PROMISES.md").read_text()) == []
    assert _QUOTED.search("| [a.md](../bench/results/a.md): out after 2.41 s |")
    assert _QUOTED.search("[137 us](../bench/results/a.md) |")
    assert not _QUOTED.search("| [a.md](../bench/results/a.md) | 1 MiB |")
