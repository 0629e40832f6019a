"""Rules for text: short sentences, and nothing named that is not there. Each rule answers its faults."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from skylb.config import Group
from skylb.dropin.translate import FLAGS as ROUTERS_FLAGS
from skylb.options import options

ROOT = Path(__file__).resolve().parents[2]

WORDS_MAX = 25
"""Words of one sentence; a piece of code counts as one."""

PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "docs/howto/*.md")
"""Where sentences are counted."""

OTHERS_FLAGS = frozenset(
    {
        # vLLM
        "--allowed-media-domains",
        "--api-key",
        "--enable-prompt-embeds",
        "--enable-prompt-tokens-details",
        "--served-model-name",
        "--sse-keep-alive-interval",
        "--trust-request-chat-template",
        "--trust-request-mm-kwargs",
        # Dynamo
        "--migration-limit",
        # pip, pipx, uv and sha256sum
        "--check",
        "--compile-bytecode",
        "--force",
        "--upgrade",
        "--yes",
        # buildah, podman, kubectl, helm, systemctl
        "--cap-drop",
        "--format",
        "--from-literal",
        "--install",
        "--now",
        "--read-only",
        "--values",
        # cargo, and the commands of bench/ and tests/
        "--bench",
        "--ignored",
        "--lib",
        "--minutes",
        "--quick",
        "--release",
        "--write",
        # other routers
        *ROUTERS_FLAGS,
    }
)
"""Flags of other programs that the pages name."""

OWN_FLAGS = frozenset(
    {"--ask", "--config", "--help", "--help-all", "--in", "--json", "--no-access-log", "--version"}
)
"""Flags of ``skylb`` that are no settings."""

OUTSIDE = re.compile(
    r"\b(RELIABILITY|PAPER\.md|ROUTING\.md|STYLE\.md|HOUSE\.md|ENGINES\.md|LAB\.md|PEERS\.md)\b"
)
"""Documents that no reader of this repository has."""

PEOPLE = re.compile(r"\b(told|telling|hears?|heard|hearing|whoever|whom)\b", re.IGNORECASE)
"""What people do. A machine reports, sends and receives; it is \"it\"."""

_NAME = re.compile(r"(?<![\w.-])[a-z]+(?:[_.][a-z]+)+(?!\w)")
"""The name of a setting as a file has it, of two words or more: one word alone may be prose."""

_DOCUMENT = re.compile(r"(?<![\w/])docs/[A-Z]+\.md")

_BLOCK = re.compile(r"::\n(?:\n|    .*\n?)+")
_TABLE = re.compile(r"^=+ +=+$.*^=+ +=+$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CODE = re.compile(r"`[^`]+`")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_INTRA = re.compile(r"\[(`[^`]+`)\](?!\()")
"""A link of rustdoc to code."""
_LABEL = re.compile(r"^`[^`]+`: \S+$", re.MULTILINE)
"""What is left of the line that says where such a link leads."""
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")
_END = re.compile(r"(?<=[.!?])[)*\"']*\s+")
_ABBREVIATED = re.compile(r"\b(e\.g|i\.e|etc|vs|no)\.(?= )", re.IGNORECASE)


# ------------------------------------------------------------------------------ sentences


def sentences(text: str) -> Iterator[str]:
    """The sentences of a Markdown page: of paragraphs, of items of lists, of cells of tables."""
    text = _COMMENT.sub("", _FENCE.sub("\n", text))
    for block in _blocks(text.splitlines()):
        plain = _LINK.sub(r"\1", _CODE.sub("CODE", block))
        yield from (part for part in _END.split(_ABBREVIATED.sub(r"\1", plain)) if part.strip())


def _blocks(lines: Iterable[str]) -> Iterator[str]:
    """Runs of lines that belong together, each as one line; headings are left out."""
    held: list[str] = []
    for line in lines:
        stripped = line.strip()
        row, heading = stripped.startswith("|"), stripped.startswith("#")
        if held and (not stripped or row or heading or _ITEM.match(line)):
            yield " ".join(held)
            held = []
        if row:
            yield from (cell for cell in re.split(r"(?<!\\)\|", stripped) if cell.strip(" -:"))
        elif stripped and not heading:
            held.append(_ITEM.sub("", line).strip())
    if held:
        yield " ".join(held)


def words(sentence: str) -> int:
    """How many words a sentence has."""
    return sum(any(map(str.isalnum, word)) for word in sentence.split())


def long_sentences(text: str) -> list[str]:
    """The sentences that are too long, with their length in front."""
    return [f"{count} words: {part}" for part in sentences(text) if (count := words(part)) > WORDS_MAX]


def people(text: str) -> list[str]:
    """The sentences in which a machine does what people do; code is no prose."""
    return [f"{match[0]!r}: {part}" for part in sentences(text) if (match := PEOPLE.search(part))]


def docstring_faults(root: Path) -> list[str]:
    """What is wrong with the text that begins each module of a package."""
    faults = []
    for path in sorted(root.rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        prose = _BLOCK.sub(":\n", _TABLE.sub("", text).replace("``", "`"))
        found = [*long_sentences(prose), *people(prose)]
        faults += [f"{path.relative_to(root)}: {fault}" for fault in found]
    return faults


def rust_text_faults(root: Path) -> list[str]:
    """What is wrong with the text that begins each module of the crate."""
    faults = []
    for path in sorted(root.rglob("*.rs")):
        lines = (line for line in path.read_text().splitlines() if line.startswith("//!"))
        text = _FENCE.sub("\n", "\n".join(line.removeprefix("//!").strip() for line in lines))
        prose = _LABEL.sub("", _INTRA.sub(r"\1", text))
        found = [*long_sentences(prose), *people(prose)]
        faults += [f"{path.relative_to(root)}: {fault}" for fault in found]
    return faults


def help_faults(models: Iterable[type[Group]]) -> list[str]:
    """Help texts that are no sentences, or long ones."""
    faults = []
    for model in models:
        flags = {name: option.flag for option in options(model) for name in (option.name, option.path[-1])}
        for option in options(model):
            where = f"{model.__name__}: {option.flag}"
            named = _NAME.findall(option.description)
            faults += [f"{where}: names {name}: write {flags[name]}" for name in named if name in flags]
            if not re.match(r"[A-Z]|[a-z0-9_]+(=[a-z]+)?(, [a-z_]+)*( loop)?: ?", option.description):
                faults.append(f"{where}: begins neither with a capital nor with the policy it is for")
            if not option.description.endswith("."):
                faults.append(f"{where}: ends without a full stop")
            if "The default is" in option.description:
                faults.append(f"{where}: help texts print the default: mark it with `Otherwise`")
            faults += [f"{where}: {fault}" for fault in long_sentences(option.description)]
            faults += [f"{where}: {fault}" for fault in people(option.description)]
    return faults


# ----------------------------------------------------------------------------- references


def reference_faults(name: str, text: str, flags: frozenset[str]) -> list[str]:
    """Links, anchors, files, flags and tests of a page that are not there.

    Args:
        name: the page, from the repository's root.
        text: what it says.
        flags: every flag that it may name.
    """
    checks: tuple[Callable[[Path, str], Iterator[str]], ...] = (_links, _files, _tests)
    found = [fault for check in checks for fault in check((ROOT / name).parent, text)]
    found += [f"{flag} is no flag" for flag in sorted(named_flags(text) - flags)]
    return [f"{name}: {fault}" for fault in found]


def known_flags(models: Iterable[type[Group]]) -> frozenset[str]:
    """Every flag of the commands with these settings, and those of other programs that are named."""
    own = {option.flag for model in models for option in options(model)}
    return frozenset(own | {flag.replace("--", "--no-", 1) for flag in own} | OWN_FLAGS | OTHERS_FLAGS)


def named_flags(text: str) -> set[str]:
    """The flags that a page names; ``--timeout-*`` names a group and is left out."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9](?![\w*-])", _COMMENT.sub("", text)))


def _links(here: Path, text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", text)):
        if re.match(r"[a-z]+://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (here / path) if path else None
        if file is not None and not file.exists():
            yield f"link to {target}: there is no such file"
        elif anchor and anchor not in anchors(file.read_text() if file is not None else text):
            yield f"link to {target}: there is no such heading"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.*)$", _FENCE.sub("", text), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", _LINK.sub(r"\1", title).lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}


_PLACES = r"(?:deploy|docs|python|rust|tests|bench|examples|requirements)/"


def _files(_: Path, text: str) -> Iterator[str]:
    for path in re.findall(rf"(?<![\w./-])({_PLACES}[\w./*-]*[\w*/])", re.sub(r"\]\([^)]*\)", "]", text)):
        if not list(ROOT.glob(path.rstrip("/"))):
            yield f"{path}: there is no such file"


def _tests(_: Path, text: str) -> Iterator[str]:
    for path, name in re.findall(r"([\w./-]+\.py)::(\w+)", text):
        places = [path] if "/" in path else [str(found) for found in _test_files() if found.name == path]
        if not any(name in functions(place) for place in places):
            yield f"{path}::{name}: there is no such test"
    for name in re.findall(r"cargo test (\w+)", text):
        if name not in rust_functions():
            yield f"cargo test {name}: there is no such test"
    known = {path.name for path in _test_files()}
    for name in set(re.findall(r"\btest_\w+\.py\b", text)) - known:
        yield f"{name}: there is no such file"


@cache
def _test_files() -> tuple[Path, ...]:
    return tuple((ROOT / "tests").rglob("*.py"))


@cache
def functions(path: str) -> frozenset[str]:
    """The functions of a Python file, named from the repository's root; none if there is no such file."""
    file = ROOT / path
    text = file.read_text() if file.exists() else ""
    return frozenset(re.findall(r"^ *(?:async )?def (\w+)", text, re.MULTILINE))


@cache
def rust_functions() -> frozenset[str]:
    """The functions of all Rust files."""
    texts = (path.read_text() for path in (ROOT / "rust").rglob("*.rs"))
    return frozenset(name for text in texts for name in re.findall(r"\bfn (\w+)", text))


def outside_faults(root: Path, paths: Iterable[Path]) -> list[str]:
    """Files that refer to documents that are not in the repository."""
    faults = []
    for path in paths:
        if path.suffix in {".py", ".pyi", ".rs", ".md", ".toml"}:
            text = path.read_text()
            for match in OUTSIDE.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                faults.append(f"{path.relative_to(root)}:{line}: {match[0]} is not in the repository")
            named = set(_DOCUMENT.findall(text))
            missing = sorted(name for name in named if not (ROOT / name).exists())
            faults += [f"{path.relative_to(root)}: {name} is not in the repository" for name in missing]
    return faults
