"""The settings' tables in the documents: written by ``make docs``, compared by a test."""

import re
import sys
from pathlib import Path

from skylb.config import Settings
from skylb.configview import table

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "OPERATIONS.md")
_BLOCK = re.compile(r"(<!-- settings: ?(?P<group>\w*) -->\n).*?(<!-- end of settings -->)", re.DOTALL)


def renewed(text: str) -> str:
    """The document with its tables as the models have them now."""
    return _BLOCK.sub(lambda match: f"{match[1]}{table(Settings, match['group'])}{match[3]}", text)


def groups(text: str) -> list[str]:
    """The groups whose tables a document holds."""
    return [match["group"] for match in _BLOCK.finditer(text)]


if __name__ == "__main__":
    for document in DOCUMENTS:
        before = document.read_text()
        after = renewed(before)
        if "--write" in sys.argv:
            document.write_text(after)
        print(f"{document.relative_to(ROOT)}: {'as it was' if before == after else 'renewed'}")
