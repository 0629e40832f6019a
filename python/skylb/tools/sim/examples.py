"""Scenarios that come with SkyLB: ``skylb sim --example`` lists and writes them.

The first line of each is a comment that says what it shows.
"""

from pathlib import Path

from skylb.errors import ConfigError
from skylb.hints import suggestion

LIST = "list"
"""Stands for the list of all examples."""

_SUFFIX = ".toml"


_FOLDER = Path(__file__).parent / "scenarios"


def names() -> list[str]:
    """The names of all examples."""
    return sorted(
        path.name.removesuffix(_SUFFIX) for path in _FOLDER.iterdir() if path.name.endswith(_SUFFIX)
    )


def example(name: str) -> str:
    """An example's text, or for `LIST` a line for each example.

    Raises:
        ConfigError: there is no example of that name; names all that there are.
    """
    if name == LIST:
        return "".join(f"{line}\n" for line in _listing())
    if name not in names():
        unknown = f"--example: {name!r}: unknown{suggestion(name, names())}: expected one of"
        raise ConfigError(["\n    ".join([unknown, *_listing()])])
    return _text(name)


def path_of(name: str) -> Path:
    """The file of an example."""
    return _FOLDER / f"{name}{_SUFFIX}"


def _text(name: str) -> str:
    return path_of(name).read_text(encoding="utf-8")


def about(name: str) -> str:
    """What an example shows, in a sentence."""
    return _text(name).partition("\n")[0].removeprefix("#").strip()


def _listing() -> list[str]:
    found = names()
    width = max(map(len, found))
    return [f"{name:<{width}}  {about(name)}" for name in found]
