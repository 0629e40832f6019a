"""The rules of the house that no linter knows: each takes a directory and answers its faults."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.tidy import rust_text

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

RUST_TEST_MODULES = frozenset({"tests", "properties", "oracle"})
"""Modules under ``#[cfg(test)]`` that have a file of their own."""

ENGINE_BANS = {
    r"\bpyo3\b": "the engine knows nothing of Python",
    r"\bstd::time\b|\bInstant::now\b|\b(SystemTime|UNIX_EPOCH)\b": "time is an argument",
    r"\buse std::\{[^}]*\btime\b": "time is an argument",
    r"\b(RandomState|DefaultHashBuilder|DefaultHasher)\b": "the default hasher draws entropy",
    r"\b(getrandom|thread_rng|OsRng|from_os_rng)\b": "randomness is seeded",
    r"\brand::": "randomness is `engine::rng`",
    r"\bstd::(env|fs|process|io|thread)\b": "the engine opens, reads and starts nothing",
    r"\buse std::\{[^}]*\b(env|fs|process|io|thread)\b": "the engine opens, reads and starts nothing",
    r"\b(TcpStream|TcpListener|UdpSocket|UnixStream|ToSocketAddrs)\b": "the engine opens nothing",
    r"\bthread::(spawn|sleep|scope|current)\b": "the engine runs on its caller's thread",
    r"\b(thread_local|static mut)\b": "the engine has no hidden state",
    r"\b(println|eprintln|print|eprint|dbg)!": "the engine logs nothing",
    r"\blog::|\btracing::": "the engine logs nothing",
    r"\bstd::collections::(HashMap|HashSet|hash_map|hash_set)\b": "the default hasher draws entropy",
    r"\bcollections::\{[^}]*\bHash(Map|Set)\b": "the default hasher draws entropy",
    r"\bHash(Map|Set)::(new|with_capacity)\(": "the default hasher draws entropy",
}

WORDS_BANNED = frozenset({"backend", "backends", "pod", "pods"})
WORDS_ALLOWED: dict[str, str] = {}
"""Identifiers that hold such a word because somebody else's interface does, with the reason."""


PURE_ROOMS = ("http", "prompt", "relay", "engine", "id.rs", "rng.rs")
"""Parts of ``rust/src`` that are functions of their arguments."""


def purity_faults(directory: Path) -> list[str]:
    """What breaks the purity of ``rust/src``, tests included: they too must be functions of a seed."""
    faults = []
    rooms = [directory / room for room in PURE_ROOMS]
    paths = (path for room in rooms for path in (room.rglob("*.rs") if room.is_dir() else [room]))
    for path in sorted(path for path in paths if path.exists()):
        text = rust_text.bare(path.read_text())
        for pattern, reason in ENGINE_BANS.items():
            for match in re.finditer(pattern, text):
                line = text.count("\n", 0, match.start()) + 1
                faults.append(f"{path.relative_to(directory)}:{line}: {match[0]}: {reason}")
        for match in re.finditer(r"\bHash(Map|Set)\s*<", text):
            if rust_text.type_arguments(text, match.end() - 1) < (3 if match[1] == "Map" else 2):
                line = text.count("\n", 0, match.start()) + 1
                faults.append(f"{path.relative_to(directory)}:{line}: {match[0]}: name a fixed hasher")
    return faults


# -------------------------------------------------------------------------------- sizes


def size_faults(root: Path) -> list[str]:
    """Modules and functions that have grown too long; Rust's test modules are not counted."""
    faults = []
    for path in sorted(
        [*root.glob("python/**/*.py"), *root.glob("tests/**/*.py"), *root.glob("bench/**/*.py")]
    ):
        source = path.read_text()
        found = [(node.name, node.lineno, _lines(node)) for node in _functions(ast.parse(source))]
        faults += _too_long(path.relative_to(root), source.count("\n"), found)
    sources = (
        path
        for path in root.glob("rust/**/*.rs")
        if RUST_TEST_MODULES.isdisjoint(path.relative_to(root).with_suffix("").parts)
    )
    for path in sorted(sources):
        text = rust_text.without_tests(path.read_text())
        faults += _too_long(path.relative_to(root), text.count("\n"), rust_text.functions(text))
    return faults


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    docstring = node.body[0] if ast.get_docstring(node) is not None else None
    prose = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring is not None else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - prose


def _too_long(path: Path, lines: int, functions: list[tuple[str, int, int]]) -> list[str]:
    faults = [f"{path}: {lines} lines: at most {MODULE_LINES_MAX}"] if lines > MODULE_LINES_MAX else []
    return faults + [
        f"{path}:{first}: {name} has {count} lines: at most {FUNCTION_LINES_MAX}"
        for name, first, count in functions
        if count > FUNCTION_LINES_MAX
    ]


# -------------------------------------------------------------------------------- Python


def _uses(tree: ast.AST, names: frozenset[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        name = (
            node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
        )
        if isinstance(node, ast.expr) and name in names:
            yield node.lineno, name
        if isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in names)


def only_in_faults(package: Path, names: frozenset[str], allowed: str) -> list[str]:
    """Uses of names that one module alone may use."""
    return [
        f"{path.relative_to(package)}:{line}: {name}: only in {allowed}"
        for path in sorted(package.rglob("*.py"))
        if path != package / allowed
        for line, name in _uses(ast.parse(path.read_text()), names)
    ]


# ---------------------------------------------------------------------------------- words


def word_faults(root: Path) -> list[str]:
    """Identifiers that use another word for what is a replica here."""
    faults = []
    for path in sorted(
        [*root.glob("python/**/*.py*"), *root.glob("rust/**/*.rs"), *root.glob("tests/**/*.py")]
    ):
        if path.suffix == ".so" or "__pycache__" in path.parts:
            continue
        text = path.read_text()
        names = (
            set(re.findall(r"[A-Za-z_]\w*", rust_text.bare(text)))
            if path.suffix == ".rs"
            else _identifiers(text)
        )
        faults += [
            f"{path.relative_to(root)}: {name}: say replica"
            for name in sorted(names - WORDS_ALLOWED.keys())
            if WORDS_BANNED & set(re.findall(r"[a-z]+", re.sub(r"([A-Z])", r" \1", name).lower()))
        ]
    return faults


def _identifiers(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names |= {
            value
            for field in ("name", "id", "attr", "arg", "asname")
            if isinstance(value := getattr(node, field, None), str)
        }
    return names


# ------------------------------------------------------------------------------ documents


def make_targets(makefile: str) -> dict[str, bool]:
    """Targets with whether they have a help line."""
    found = re.findall(r"^([a-z][a-z-]*):(?!=)([^\n]*)$", makefile, re.MULTILINE)
    return {name: "## " in rest for name, rest in found}


def variable_faults(makefile: str) -> list[str]:
    """Variables that are the user's, as the help or a test for them says, and that the file sets itself."""
    asked = re.findall(r"\$\((?:if|or) \$\(([A-Z_]+)\)", makefile)
    helped = re.findall(r"^[a-z-]+:.*## .*?([A-Z_]+)=", makefile, re.MULTILINE)
    own = re.findall(r"^([A-Z_]+) *:?=", makefile, re.MULTILINE)
    return sorted({*asked, *helped} & {*own})


def named_targets(text: str) -> set[str]:
    """The targets that a document names as ``make TARGET``, in code or in a code block."""
    return set(re.findall(r"(?:`|^|\$ |&& )(?:[A-Z_]+=\S+ )?make ([a-z][a-z-]*)", text, re.MULTILINE))


def path_faults(root: Path, paths: list[Path]) -> list[str]:
    """Files that name a directory of somebody's machine."""
    machine = re.compile(
        r"(?<![\w.}/])/(?:" + "|".join(["ho" + "me", "ro" + "ot", "wo" + "rk", "Us" + "ers"]) + r")/\w+"
    )
    return [
        f"{path.relative_to(root)}: {match[0]}"
        for path in paths
        if path.suffix not in {".lock", ".so", ".gz", ".png"}
        for match in machine.finditer(path.read_text(errors="replace"))
    ]
