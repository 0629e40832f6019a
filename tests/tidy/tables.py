"""The documents' tables that come from the code: written by ``make docs``, compared by tests."""

import re
import sys
from pathlib import Path

from skylb.config import Settings
from skylb.configview import table

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from tests.tidy import (  # noqa: E402 - a script's own directory is the first that is looked in
    chart,
    commands,
    dropin,
    limits,
    scenarios,
)
from tests.tidy.passing import TABLES  # noqa: E402 - likewise

DOCUMENTS = (ROOT / "docs" / "CONFIGURATION.md",)
"""Those with tables of settings."""
PASSING = ROOT / "docs" / "PASSING.md"
API = ROOT / "docs" / "API.md"
ALGORITHM = ROOT / "docs" / "ALGORITHM.md"
SCENARIO = ROOT / "docs" / "SCENARIO.md"
_BLOCK = re.compile(r"(<!-- settings: ?(?P<group>\w*) -->\n).*?(<!-- end of settings -->)", re.DOTALL)
_REFERENCE = re.compile(r"(<!-- scenario -->\n).*?(<!-- end of scenario -->)", re.DOTALL)
_CORE = re.compile(r"(<!-- core: (?P<name>\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def renewed(text: str) -> str:
    """The document with its tables as the models have them now."""
    return _BLOCK.sub(lambda match: f"{match[1]}{table(Settings, match['group'])}{match[3]}", text)


def passing(text: str) -> str:
    """The page on what passes, with its tables as the core has them now."""
    return _CORE.sub(lambda match: f"{match[1]}{TABLES[match['name']]()}{match[3]}", text)


def scenario(text: str) -> str:
    """The reference of scenario files as the structs have it now."""
    return _REFERENCE.sub(lambda match: f"{match[1]}\n{scenarios.reference()}\n{match[2]}", text)


if __name__ == "__main__":
    pages = {
        **dict.fromkeys(DOCUMENTS, renewed),
        PASSING: passing,
        API: passing,
        ALGORITHM: passing,
        SCENARIO: scenario,
        limits.PAGE: limits.renewed,
        chart.SCHEMA: chart.renewed,
        dropin.PAGE: dropin.renewed,
        commands.PAGE: commands.renewed,
    }
    for document, renew in pages.items():
        before = document.read_text()
        after = renew(before)
        if "--write" in sys.argv:
            document.write_text(after)
        print(f"{document.relative_to(ROOT)}: {'as it was' if before == after else 'renewed'}")
    for fault in limits.faults(limits.PAGE.read_text()):
        print(fault)
