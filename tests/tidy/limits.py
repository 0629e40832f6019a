"""docs/LIMITS.md against the code: every limit has a row, and every row says the value that the code has."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skylb.config import Settings
from skylb.options import options

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "LIMITS.md"

SETTING = re.compile(r"(_max|_min|_s|_len|_bytes)(_s)?$")
"""Names of settings that bound something."""

_PYTHON = re.compile(r"^([A-Z][A-Z0-9_]*(?:_MAX|_MAX_S|_S|_LEN|_BYTES))(?:: [^=]+)? = (.+)$", re.MULTILINE)
_RUST = re.compile(
    r"^(?:pub(?:\([^)]*\))? )?const ([A-Z][A-Z0-9_]*(?:_MAX|_LEN_MAX|_NS_MAX)): [^=]+ =\s*([^;]+);",
    re.MULTILINE,
)

_SPAN = re.compile(r"^Span::from_ns\((.+)\)$")

PYTHON_PARTS = (
    "data",
    "control",
    "discovery",
    "mesh",
    "admin",
    "handover",
    "keys",
    "accesslog.py",
    "addresses.py",
    "app.py",
    "parts.py",
    "filelimit.py",
    "inherited.py",
    "keyfiles.py",
    "options.py",
    "settings/mesh.py",
    "settings/names.py",
    "tools/operate",
    "upstream.py",
    "workers",
)
"""Where Python meets what comes from elsewhere."""

RUST_PARTS = (
    "engine/cache/learn.rs",
    "engine/choose/order.rs",
    "engine/demand.rs",
    "engine/cache/paths.rs",
    "engine/cache/reported.rs",
    "engine/fleet/lengths.rs",
    "engine/fleet/models.rs",
    "engine/fleet/pulse.rs",
    "engine/fleet/snapshot",
    "engine/fleet/snapshot.rs",
    "engine/hold/report.rs",
    "engine/keep",
    "engine/mesh",
    "engine/requests",
    "engine/explain",
    "engine/receipts",
    "engine/router",
    "engine/tenants",
    "http",
    "prompt",
    "record",
    "relay",
)
"""Where Rust does."""

NOT_LIMITS = frozenset(
    {
        # Sizes of our own writing, and rhythms of our own loops: nothing from elsewhere reaches them.
        "BEAT_S",
        "CLOSE_S",
        "DRAIN_INTERVAL_S",
        "FRAME_INTERVAL_S",
        "HEAP_KEEP_BYTES",
        "JUDGE_S",
        "FIGURES_S",
        "LAZY_S",
        "LOOK_S",
        "STATUS_S",
        "MAC_BYTES",
        "BLOCK_SECRET_BYTES",
        "MARK_KEY_BYTES",
        "NONCE_BYTES",
        "OVERHEAD_BYTES",
        "REFRESH_S",
        "REDIAL_S",
        "SMALL_BODY_BYTES",
        "SWEEP_S",
        "SWEEP_S_MAX",
        "TICK_S",
        "MISSES_MAX",
        "WINDOW_MAX",
    }
)
"""Constants named like limits that bound nothing from elsewhere."""


@dataclass(frozen=True)
class Limit:
    """One limit of the code."""

    name: str
    where: str
    value: str

    @property
    def key(self) -> tuple[str, str]:
        """What a row is found by."""
        return self.name, self.where

    def row(self, what: str = "WHAT HAPPENS WHEN IT IS REACHED", metric: str = "METRIC OR -") -> str:
        """Its row."""
        return f"| `{self.name}` | {self.where} | {self.value} | {what} | {metric} |"


def limits() -> list[Limit]:
    """Every limit: settings, then constants of Python and of Rust."""
    return [*_settings(), *_python(), *_rust()]


def _settings() -> Iterator[Limit]:
    for option in options(Settings):
        if SETTING.search(option.name.rpartition(".")[2]):
            yield Limit(option.flag, "setting", option.otherwise)


def _files(base: Path, parts: tuple[str, ...], pattern: str) -> Iterator[Path]:
    for part in parts:
        path = base / part
        yield from sorted(path.rglob(pattern)) if path.is_dir() else [path] if path.exists() else []


def _python() -> Iterator[Limit]:
    base = ROOT / "python" / "skylb"
    for path in _files(base, PYTHON_PARTS, "*.py"):
        for name, text in _PYTHON.findall(path.read_text()):
            if name not in NOT_LIMITS:
                yield Limit(name, path.relative_to(base).as_posix(), _value(text))


def _rust() -> Iterator[Limit]:
    base = ROOT / "rust" / "src"
    for path in _files(base, RUST_PARTS, "*.rs"):
        if "tests" in path.parts or path.name in {"tests.rs", "oracle.rs"} or "oracle" in path.parts:
            continue
        for name, text in _RUST.findall(path.read_text()):
            if name not in NOT_LIMITS:
                yield Limit(name, path.relative_to(base).as_posix(), _value(_SPAN.sub(r"\1", text)))


def _value(text: str) -> str:
    """A number with commas, or where it is no plain sum the expression itself."""
    plain = re.sub(r"(?<=\d)_(?=\d)|(?<=\d)_?(u|i|f)\d+", "", text.partition("#")[0].strip())
    if not re.fullmatch(r"[0-9a-fx.e<>+*() -]+", plain):
        return f"`{' '.join(plain.split())}`".replace("|", "\\|")
    number = eval(plain, {"__builtins__": {}})
    return f"{number:,}"


def rows(text: str) -> dict[tuple[str, str], list[str]]:
    """The cells of every row, by name and place."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and cells[0].startswith("`"):
            found[cells[0].strip("`"), cells[1]] = cells
    return found


def _moved(shown: set[tuple[str, str]], known: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Rows whose constant now stands in another file, and where."""
    lost, new = shown - known, known - shown
    found = {}
    for name, where in lost:
        places = [place for other, place in new if other == name]
        if len(places) == 1 and sum(other == name for other, _ in lost) == 1:
            found[name, where] = places[0]
    return found


def faults(text: str) -> list[str]:
    """What is wrong with the page, a sentence each."""
    known = {limit.key: limit for limit in limits()}
    shown = rows(text)
    moved = _moved(set(shown), set(known))
    if moved:
        places = ((name, place) for (name, _), place in moved.items())
        return [f"docs/LIMITS.md: {name} is in {place}: run `make docs`" for name, place in places]
    wrong = [
        f"docs/LIMITS.md lacks a row; add it to the table where it fits: {limit.row()}"
        for key, limit in known.items()
        if key not in shown
    ]
    wrong += [
        f"docs/LIMITS.md: {name} ({where}) is in no code" for name, where in shown.keys() - known.keys()
    ]
    for key, cells in shown.items():
        if key in known and cells[2] != known[key].value:
            wrong.append(f"docs/LIMITS.md: {key[0]} is {known[key].value}, not {cells[2]}: run `make docs`")
        if key in known and (not cells[3] or "WHAT HAPPENS" in cells[3] or not cells[4]):
            wrong.append(f"docs/LIMITS.md: {key[0]} does not say what happens when it is reached")
    return wrong


def renewed(text: str) -> str:
    """The page with the values and places that the code has now; rows are neither added nor taken away."""
    known = {limit.key: limit for limit in limits()}
    moved = _moved(set(rows(text)), set(known))

    def line(old: str) -> str:
        for key, cells in rows(old).items():
            limit = known.get((key[0], moved.get(key, key[1])))
            if limit is not None:
                return limit.row(cells[3], cells[4])
        return old

    return "\n".join(map(line, text.split("\n")))
