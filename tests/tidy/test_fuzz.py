"""The fuzz targets: each has its row in their text, its corpus, and its place in the list."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FUZZ = ROOT / "rust" / "fuzz"


def listed() -> list[str]:
    """Names of the targets, as the list has them."""
    return re.findall(r'^ +name: "(\w+)",$', (FUZZ / "targets" / "mod.rs").read_text(), re.MULTILINE)


def test_every_target_has_a_row_and_inputs() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (FUZZ / "README.md").read_text(), re.MULTILINE)
    corpora = [path.name for path in (FUZZ / "corpus").iterdir() if any(path.iterdir())]
    assert len(listed()) >= 8
    assert sorted(rows) == sorted(corpora) == sorted(listed())


def test_every_file_of_a_target_is_in_the_list() -> None:
    files = [path for path in (FUZZ / "targets").glob("*.rs") if "pub fn seeds(" in path.read_text()]
    assert sorted(path.stem for path in files) == sorted(listed())
