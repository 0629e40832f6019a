"""The table of errors against the code: what is answered is in it, and what is in it can be answered."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tests.tidy import rust_text
from tests.tidy.rules import RUST_TEST_MODULES

TABLE = "http/errors.rs"

RAISES = frozenset({"refusal", "_error", "error_body", "answer_error"})
"""Python's functions that take a status and a code; the status comes first of the two."""

_CALL = re.compile(r"\b(?:RequestError|Refusal|Self)::new\(\s*(\d{3}),\s*\"(\w+)\"")
"""What makes an error in Rust. Where the code is an argument, the constructor looks it up when it runs."""

_LITERAL = re.compile(r'"([a-z][a-z0-9]*(?:_[a-z0-9]+)*)"')


def rust_answers(source: Path) -> set[tuple[int, str]]:
    """Statuses and codes that Rust answers with, as far as they stand together."""
    found = set()
    for _, text in _rust(source):
        found |= {(int(status), code) for status, code in _CALL.findall(text)}
    return found


def python_answers(directory: Path) -> set[tuple[int, str]]:
    """Statuses and codes that Python answers with."""
    found = set()
    for path in sorted(directory.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name(node.func) in RAISES:
                values = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                found |= {
                    (status, code)
                    for status, code in pairwise(values)
                    if isinstance(status, int) and isinstance(code, str)
                }
    return found


def literals(core: Path, data: Path) -> set[str]:
    """Every string of one word in the code, the table's own apart."""
    found: set[str] = set()
    for name, text in _rust(core):
        if name != TABLE:
            found |= set(_LITERAL.findall(text))
    for path in sorted(data.rglob("*.py")):
        found |= {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
    return found


def _rust(source: Path) -> Iterator[tuple[str, str]]:
    """Sources without comments and tests, but with their strings."""
    for path in sorted(source.rglob("*.rs")):
        name = path.relative_to(source)
        if RUST_TEST_MODULES.isdisjoint(name.with_suffix("").parts):
            text = path.read_text()
            bare = rust_text.without_tests(text)
            if len(bare.splitlines()) < len(text.splitlines()):
                text = text.partition("#[cfg(test)]\nmod ")[0]
            yield name.as_posix(), re.sub(r"(?m)^\s*//.*$", "", text)


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
