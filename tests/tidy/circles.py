"""Circles of modules: which file needs which, in Python and in Rust, and where that leads back."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.tidy import rust_text
from tests.tidy.rules import RUST_TEST_MODULES

Graph = dict[str, set[str]]
"""By file, the files that it needs; all relative to one directory."""


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """One circle of each set of files that all need each other, shortest first."""
    found = [_shortest(graph, knot) for knot in knots(graph)]
    return sorted(found, key=lambda circle: (len(circle), circle))


def text_of(circle: list[str]) -> str:
    """The circle as people read it: from its first file back to it."""
    return " -> ".join([*circle, circle[0]])


def knots(graph: Mapping[str, set[str]]) -> list[frozenset[str]]:
    """Sets of files that can all be reached from each other; single files are none."""
    reached = {file: _reached(graph, file) for file in graph}
    seen: set[frozenset[str]] = set()
    for file, targets in reached.items():
        knot = frozenset(other for other in targets if file in reached[other])
        if len(knot) > 1:
            seen.add(knot)
    return sorted(seen, key=sorted)


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    rest = [start]
    while rest:
        for target in graph[rest.pop()]:
            if target not in found:
                found.add(target)
                rest.append(target)
    return found


def _shortest(graph: Mapping[str, set[str]], knot: frozenset[str]) -> list[str]:
    ways = [_way_back(graph, knot, start) for start in sorted(knot)]
    return min(ways, key=len)


def _way_back(graph: Mapping[str, set[str]], knot: frozenset[str], start: str) -> list[str]:
    """The shortest way from a file back to it."""
    before: dict[str, str] = {}
    layer = [start]
    while layer:
        following = []
        for file in layer:
            for target in sorted(graph[file] & knot):
                if target == start:
                    way = [file]
                    while way[-1] != start:
                        way.append(before[way[-1]])
                    return way[::-1]
                if target not in before:
                    before[target] = file
                    following.append(target)
        layer = following
    raise ValueError(f"{start} is in no circle")


# -------------------------------------------------------------------------------- Python


def python_graph(package: Path) -> Graph:
    """Imports of a package, wherever they stand: in functions and under ``TYPE_CHECKING`` as well.

    To import a module runs the ``__init__.py`` of each package that holds it: those that do not hold the
    importing module too are needed as well.
    """
    modules = {_dotted(package, path): path for path in sorted(package.rglob("*.py"))}
    graph: Graph = {path.relative_to(package).as_posix(): set() for path in modules.values()}
    for name, path in modules.items():
        needed: set[str] = set()
        for target in _imports(ast.parse(path.read_text()), name, path.name == "__init__.py"):
            found = _known(modules, target)
            if found is not None:
                needed.add(found)
                needed |= {parent for parent in _parents(found) if not _holds(parent, name)}
        graph[path.relative_to(package).as_posix()] = {
            modules[other].relative_to(package).as_posix() for other in needed if other != name
        }
    return graph


def _dotted(package: Path, path: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Each imported name, as if it were a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")
                above = above[: len(above) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _known(modules: Mapping[str, Path], name: str) -> str | None:
    """The module that a dotted name is, or is in."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _holds(package: str, name: str) -> bool:
    return name == package or name.startswith(f"{package}.")


# ---------------------------------------------------------------------------------- Rust

_USE = re.compile(r"\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
_INLINE = re.compile(r"\b(?:crate|super|self)(?:\s*::\s*\w+)+")
_TEST_FILE = re.compile(
    r"#\[cfg\((?:test|any\(test[^)]*\))\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))? )?mod (\w+);"
)

Module = tuple[str, ...]
"""Its path below the crate; the crate itself is the empty one."""


class _Crate:
    """The modules of a crate, what each names, and what each hands on (``pub use``)."""

    def __init__(self, source: Path) -> None:
        self.files: dict[Module, str] = {}
        self.texts: dict[Module, str] = {}
        tests: set[Module] = set()
        for path in sorted(source.rglob("*.rs")):
            module = _module(path.relative_to(source))
            text = path.read_text()
            self.files[module] = path.relative_to(source).as_posix()
            self.texts[module] = rust_text.without_tests(text)
            tests |= {(*module, name) for name in _TEST_FILE.findall(rust_text.bare(text))}
        for module in list(self.files):
            if any(module[: len(test)] == test for test in tests) or RUST_TEST_MODULES & set(module):
                del self.files[module], self.texts[module]
        self.handed_on: dict[Module, list[tuple[Module, str]]] = {
            module: [
                (path, name)
                for public, tree in _USE.findall(text)
                if public
                for path, name in self._leaves(module, tree)
            ]
            for module, text in self.texts.items()
        }

    def needs(self, module: Module) -> set[Module]:
        """The modules that one names, or whose items it names."""
        text = self.texts[module]
        named = [path for _, tree in _USE.findall(text) for path, _ in self._leaves(module, tree)]
        named += [
            path
            for match in _INLINE.finditer(_USE.sub("", text))
            if (path := self._absolute(module, re.split(r"\s*::\s*", match[0]))) is not None
        ]
        return {self._home(path) for path in named}

    def _leaves(self, module: Module, tree: str) -> Iterator[tuple[Module, str]]:
        """Each path of a ``use``, from the crate on, with the name that it gets."""
        for segments, name in _branches(tree):
            path = self._absolute(module, segments)
            if path is not None:
                yield path, name

    def _absolute(self, module: Module, segments: list[str]) -> Module | None:
        """A path from the crate on; ``None`` for one of another crate."""
        first, rest = segments[0], segments[1:]
        if first == "crate":
            base: Module = ()
        elif first in {"self", "super"}:
            base = module if first == "self" else module[:-1]
            while rest and rest[0] == "super":
                base, rest = base[:-1], rest[1:]
        elif (*module, first) in self.files:
            base, rest = module, segments
        else:
            return None
        return (*base, *rest)

    def _home(self, path: Module, depth: int = 0) -> Module:
        """The module that a path is, or in which the item that it names is defined."""
        length = len(path)
        while path[:length] not in self.files:
            length -= 1
        module, rest = path[:length], path[length:]
        if not rest or depth > len(self.files):
            return module
        for target, name in self.handed_on[module]:
            if name == rest[0]:
                return self._home((*target, *rest[1:]), depth + 1)
        for target, name in self.handed_on[module]:
            if name == "*" and target in self.files and _defines(self.texts[target], rest[0]):
                return target
        return module


def rust_graph(source: Path) -> Graph:
    """Which file of a crate names which, tests apart.

    A module and those inside it are one thing: between them nothing is counted.
    """
    crate = _Crate(source)
    return {
        file: {crate.files[other] for other in crate.needs(module) if not _related(module, other)}
        for module, file in crate.files.items()
    }


def _module(path: Path) -> Module:
    parts = path.with_suffix("").parts
    return parts[:-1] if parts[-1] in {"mod", "lib"} else parts


def _related(one: Module, other: Module) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _defines(text: str, name: str) -> bool:
    return re.search(rf"\b(?:fn|struct|enum|trait|type|const|static|mod|union)\s+{name}\b", text) is not None


def _branches(tree: str) -> Iterator[tuple[list[str], str]]:
    """``a::{b, c as d}`` as ``([a, b], b), ([a, c], d)``; ``self`` at the end is what it stands behind."""
    head, brace, rest = tree.partition("{")
    prefix = [part for part in re.split(r"\s*::\s*", head.strip()) if part]
    if not brace:
        *above, last = prefix
        last, _, alias = (part.strip() for part in last.partition(" as "))
        segments = above if last == "self" and above else prefix if last == "*" else [*above, last]
        if last == "*":
            yield above, "*"
        else:
            yield segments, alias or segments[-1]
        return
    for part in _parts(rest[: rest.rindex("}")]):
        for segments, name in _branches(part):
            if segments == ["self"]:
                yield prefix, prefix[-1] if name == "self" else name
            else:
                yield [*prefix, *segments], name


def _parts(text: str) -> Iterator[str]:
    """What stands between the commas that are in no braces."""
    depth, start = 0, 0
    for index, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            yield text[start:index]
            start = index + 1
    if text[start:].strip():
        yield text[start:]
