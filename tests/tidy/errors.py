"""The table of errors against the code: what is answered is in it, and what is in it can be answered."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.tidy import rust_text
from tests.tidy.rules import RUST_TEST_MODULES

TABLE = "http/errors.rs"

RAISES = frozenset({"refusal", "Refusal", "_error", "error_body", "answer_error", "status_of"})
"""Python's functions that take a code: as the first string among their arguments."""

_CALL = re.compile(r"\b(?:RequestError|Refusal|Self)::new\(\s*\"(\w+)\",")
"""What makes an error in Rust. Where the code is an argument, the constructor looks it up when it runs."""

_LITERAL = re.compile(r'"([a-z][a-z0-9]*(?:_[a-z0-9]+)*)"')


def rust_answers(source: Path) -> set[str]:
    """Codes that Rust answers with, as far as they stand where the error is made."""
    return {code for _, text in _rust(source) for code in _CALL.findall(text)}


def python_answers(*directories: Path) -> set[str]:
    """Codes that Python answers with, likewise."""
    given = (arguments for directory in directories for arguments in _given(directory))
    words = ((value for value in values if isinstance(value, str)) for values in given)
    return {code for code in (next(values, None) for values in words) if code is not None}


def statuses(*directories: Path) -> set[int]:
    """Statuses that stand beside a code in Python: the table has them, so there should be none."""
    given = (arguments for directory in directories for arguments in _given(directory))
    return {value for values in given for value in values if type(value) is int}


def _given(directory: Path) -> Iterator[list[object]]:
    """The constants that each call of one of `RAISES` is given by position."""
    for path in sorted(directory.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name(node.func) in RAISES:
                yield [arg.value for arg in node.args if isinstance(arg, ast.Constant)]


def literals(core: Path, *directories: Path) -> set[str]:
    """Every string of one word in the code, the table's own apart."""
    found: set[str] = set()
    for name, text in _rust(core):
        if name != TABLE:
            found |= set(_LITERAL.findall(text))
    for directory in directories:
        for path in sorted(directory.rglob("*.py")):
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
