"""Rust source as text: without comments, strings and tests, and cut into functions."""

import re
from functools import cache

_NOISE = re.compile(
    r"""//[^\n]*                                # line comments
      | /\*.*?\*/                               # block comments
      | r(?P<hash>\#*)".*?"(?P=hash)            # raw strings
      | b?"(?:\\.|[^"\\])*"                     # strings
      | b?'(?:\\.[^']*|[^'\\\n])'               # characters, not lifetimes
    """,
    re.VERBOSE | re.DOTALL,
)
_TEST_MODULE = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*mod \w+ \{")
_FUNCTION = re.compile(r"\bfn (\w+)")


@cache
def bare(source: str) -> str:
    """The source with comments and literals blanked; line numbers stay."""
    return _NOISE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), source)


@cache
def without_tests(source: str) -> str:
    """Bare source without its ``#[cfg(test)]`` modules."""
    text = bare(source)
    while match := _TEST_MODULE.search(text):
        text = text[: match.start()] + text[block_end(text, match.end() - 1) :]
    return text


def block_end(text: str, start: int) -> int:
    """The index after the block that opens at ``text[start]``."""
    depth = 0
    for index in range(start, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index + 1
    return len(text)


def functions(text: str) -> list[tuple[str, int, int]]:
    """``(name, first line, lines)`` of each function with a body, in bare source."""
    found = []
    for match in _FUNCTION.finditer(text):
        opening = text.find("{", match.end())
        semicolon = text.find(";", match.end())
        # `[u8; 4]` in a signature holds a semicolon that ends nothing
        while 0 <= semicolon < opening and text.count("[", match.end(), semicolon) > text.count(
            "]", match.end(), semicolon
        ):
            semicolon = text.find(";", semicolon + 1)
        if opening < 0 or 0 <= semicolon < opening:
            continue
        end = block_end(text, opening)
        found.append(
            (match[1], text.count("\n", 0, match.start()) + 1, text.count("\n", match.start(), end) + 1)
        )
    return found


def type_arguments(text: str, opening: int) -> int:
    """How many type arguments the list that opens with ``<`` at ``opening`` has."""
    depth, count = 0, 1
    for index in range(opening, len(text)):
        character = text[index]
        if character in "<([":
            depth += 1
        elif character in ">)]" and text[index - 1] != "-":
            depth -= 1
            if depth == 0:
                return count
        elif character == "," and depth == 1 and text[index + 1 :].lstrip()[:1] != ">":
            count += 1
    return count
