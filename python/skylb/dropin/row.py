"""One flag of another router, and what becomes of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Values(Enum):
    """How many words follow a flag."""

    NONE = "none"
    ONE = "one"
    MANY = "many"


@dataclass(frozen=True, slots=True)
class Program:
    """A router whose command lines are understood.

    Args:
        letter: stands for it in rows.
        name: what people call it.
        version: the version whose flags were read.
        listen: where it listens if its command line does not say.
        metrics: where its metrics are if its command line does not say; ``None``: where it listens.
    """

    letter: str
    name: str
    version: str
    listen: tuple[str, int]
    metrics: tuple[str, int] | None


PROGRAMS = (
    Program("v", "vllm-router", "0.1.17", ("127.0.0.1", 30000), ("127.0.0.1", 29000)),
    Program("s", "smg", "1.13.0", ("0.0.0.0", 30000), ("0.0.0.0", 29000)),  # noqa: S104 - where they listen
    Program("g", "sglang-router", "0.3.2", ("0.0.0.0", 30000), ("0.0.0.0", 29000)),  # noqa: S104 - likewise
    Program("p", "production-stack", "008a23b", ("0.0.0.0", 8001), None),  # noqa: S104 - likewise
)
"""In the order in which they are thought of where a command line could be that of several."""


@dataclass(frozen=True, slots=True)
class Became:
    """The flag has a counterpart of the same meaning: ``words`` of a command line of ours."""

    words: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Half of an address: two of their flags make one of ours."""

    option: Literal["listen", "admin"]
    half: Literal["host", "port"]
    value: str


@dataclass(frozen=True, slots=True)
class Unneeded:
    """Nothing has to take the flag's place: clients and operators find no difference."""

    why: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The flag has no counterpart: why, and the flags of ours to use instead, if there are any."""

    why: str
    use: tuple[str, ...] = ()


Outcome = Became | Part | Unneeded | Answer
Act = Callable[[tuple[str, ...]], Outcome]


@dataclass(frozen=True, slots=True)
class Row:
    """One flag.

    Args:
        flag: its name.
        programs: the letters of the programs that have it. None: what is safe in all that read it apart.
        values: how many words follow it.
        act: what these words become. It is called with as many of them as ``values`` says.
        about: what becomes of it, for documents: a sentence.
        own: our flags that it may become.
        known: where we have a flag of that name too: the values that are theirs.
    """

    flag: str
    programs: str
    values: Values
    act: Act
    about: str
    own: tuple[str, ...] = ()
    known: frozenset[str] = frozenset()


_KINDS = {"!": Values.NONE, "+": Values.MANY}


def rows(flags: str, programs: str, act: Act, about: str, own: tuple[str, ...] = ()) -> list[Row]:
    """A row for each of several flags.

    ``!`` behind a flag says that nothing follows it, ``+`` that several words may; else it takes one.
    """
    return [
        Row(word.rstrip("!+"), programs, _KINDS.get(word[-1], Values.ONE), act, about, own)
        for word in flags.split()
    ]


def becomes(
    flags: str,
    programs: str,
    own: str,
    note: str = "",
    value: Callable[[str], str] = lambda text: text,
) -> list[Row]:
    """Flags with one value that is one flag of ours with the same value, or with ``value`` of it."""

    def act(words: tuple[str, ...]) -> Outcome:
        return Became((own, value(words[0])), note)

    return rows(flags, programs, act, f"`{own}`{': ' * bool(note)}{note}", (own,))


def switched(flags: str, programs: str, words: tuple[str, ...], note: str = "") -> list[Row]:
    """Flags without a value that are these words of ours."""
    text = f"`{' '.join(words)}`{': ' * bool(note)}{note}"
    own = tuple(word for word in words if word.startswith("--"))
    return rows(flags, programs, lambda _: Became(words, note), text, own)


def unneeded(flags: str, programs: str, why: str) -> list[Row]:
    """Flags that nothing has to take the place of."""
    return rows(flags, programs, lambda _: Unneeded(why), f"not needed: {why}")


def answered(flags: str, programs: str, why: str, use: str = "") -> list[Row]:
    """Flags without a counterpart; ``use``: the words of ours that come nearest."""
    words = tuple(use.split())
    instead = f": use `{use}`" if use else ""
    own = tuple(word for word in words if word.startswith("--"))
    return rows(flags, programs, lambda _: Answer(why, words), f"none: {why}{instead}", own)


def part(
    flags: str, programs: str, option: Literal["listen", "admin"], half: Literal["host", "port"]
) -> list[Row]:
    """Flags that give half of an address."""
    own = f"--{option}"
    shown = f"`{own} {half.upper()}:…`" if half == "host" else f"`{own} …:{half.upper()}`"
    return rows(flags, programs, lambda words: Part(option, half, words[0]), shown, (own,))


def by_value(known: Mapping[str, Outcome], unknown: str) -> Act:
    """What one value becomes: as ``known`` says; another is answered that SkyLB knows no such ``unknown``."""

    def act(words: tuple[str, ...]) -> Outcome:
        return known.get(words[0]) or Answer(f"SkyLB knows no {unknown} {words[0]!r}")

    return act


def shared(flag: str, programs: str, known: Mapping[str, Outcome], about: str) -> list[Row]:
    """A flag that we have too: only the values in ``known`` are theirs, and others mean the same here."""

    def act(words: tuple[str, ...]) -> Outcome:
        return known.get(words[0]) or Became((flag, words[0]))

    return [Row(flag, programs, Values.ONE, act, about, own_flags(known.values()), frozenset(known))]


def own_flags(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """The flags of ours that outcomes name, each once."""
    words = (
        outcome.words if isinstance(outcome, Became) else outcome.use if isinstance(outcome, Answer) else ()
        for outcome in outcomes
    )
    return tuple(dict.fromkeys(word for some in words for word in some if word.startswith("--")))
