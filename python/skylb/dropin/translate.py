"""From a command line of another router to one of ours: nothing here opens, prints or reads variables."""

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from skylb.dropin.gateway import ENGINES, GATEWAY, SERVE
from skylb.dropin.row import (
    PROGRAMS,
    Answer,
    Became,
    Outcome,
    Part,
    Program,
    Row,
    Unneeded,
    Values,
)
from skylb.dropin.shared import SHARED
from skylb.dropin.stack import STACK

ROWS: tuple[Row, ...] = (*SHARED, *GATEWAY, *STACK, *SERVE)
"""Every flag of every program. A flag that two programs read differently has two rows.

A third row without programs is then the answer that is safe in all of them: see `_settled`.
"""

FLAGS = frozenset(row.flag for row in ROWS)
"""Their flags. Some of their programs have no commands: with one of these as its first word, ours serves."""

LAUNCH = "launch"
"""The command of smg and sglang-router that starts a router."""

LAUNCHED = "sg"
"""The letters of the programs that have it."""

SERVES = "s"
"""The letter of the program that has ``serve``, which starts engines too."""

PREFIXES = ("--router-", "--no-router-")
"""What the flags of its router begin with in ``smg serve``."""

FLEET = frozenset({"--worker-urls", "--static-backends"})
"""Flags that say where replicas are. With one of them, a command line is a whole one of that program."""

ENGINE_FLAGS = frozenset({"--model", "--model-path"})
"""With these and without replicas, ``smg serve`` starts engines."""


@dataclass(slots=True)
class Translation:
    """A command line of ours, what became of the flags that are not ours, and what has no counterpart."""

    words: list[str] = field(default_factory=list)
    """Ours, and what nobody knows."""
    said: list[tuple[str, str]] = field(default_factory=list)
    """What was written, and what became of it."""
    faults: list[str] = field(default_factory=list)
    use: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Flags of ours, with their values, to write instead of flags without a counterpart."""
    program: Program | None = None
    """Whose command line it is; ``None``: ours."""

    @property
    def line(self) -> str:
        """The command line to write instead."""
        instead = [word for flag, values in self.use.items() for word in (flag, *values)]
        return shlex.join(["skylb", "serve", *self.words, *instead])

    def instead(self, words: Sequence[str]) -> str:
        """Takes words of ours into the line. What was written counts more; a value more than a placeholder.

        Returns what is in the line in their place, if their first flag has another value there.
        """
        advice: dict[str, tuple[str, ...]] = {}
        for word in words:
            if word.startswith("--"):
                flag = word
                advice[flag] = ()
            else:
                advice[flag] = (word,)
        written = _by_flag(self.words)
        for index, (flag, values) in enumerate(advice.items()):
            there = written.get(flag, self.use.get(flag))
            if index == 0 and there and values and there != values and not _open(there) and not _open(values):
                return shlex.join([flag, *there])
            if flag not in written and (not there or _open(there)):
                self.use[flag] = values
        return ""

    def lines(self) -> list[str]:
        """What to say once: a heading, a line per flag, and the command line to write instead."""
        if self.program is None:
            return []
        width = min(40, max((len(theirs) for theirs, _ in self.said), default=0))
        rows = [f"  {theirs:<{width}}  {ours}" for theirs, ours in self.said]
        if not rows and not self.words and not self.use:
            return []  # there is nothing to write instead
        heading = f"flags of {self.program.name}, and what became of them:"
        return [heading, *rows, f"with SkyLB's own flags: {self.line}"]


def _by_flag(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The value that each flag of ours has in a command line; the last one of several."""
    found: dict[str, tuple[str, ...]] = {}
    for word, following in zip(words, [*words, "--"][1:], strict=True):
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            found[flag] = (value,) if equals else () if following.startswith("--") else (following,)
    return found


def _open(values: Sequence[str]) -> bool:
    """Whether a placeholder stands where a value goes."""
    return bool(values) and values[0].isupper()


@dataclass(slots=True)
class _Asked:
    """One of their flags as it was written."""

    rows: tuple[Row, ...]
    """Several where programs read the flag differently: which one counts depends on the other flags."""
    programs: frozenset[str]
    """The letters of the programs whose flag it may be."""
    flag: str
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """The flag without a prefix."""
        return self.rows[0].flag


def translate(
    words: Sequence[str],
    own: Collection[str],
    given: Collection[str] = (),
    *,
    launched: bool = False,
) -> Translation:
    """Puts our flags in the place of theirs.

    Args:
        words: a command line without the command.
        own: our flags.
        given: our flags that an environment or a file may have set: they get none of the program's defaults.
        launched: the command was ``launch``.
    """
    made = Translation()
    asked: list[_Asked] = []
    _split(words, own, made, asked)
    if not asked and not made.faults and not launched:
        return Translation(words=list(words))
    programs = tuple(program for program in PROGRAMS if not launched or program.letter in LAUNCHED)
    made.program = _program(asked, programs)
    sure = _sure(asked, programs)
    parts: dict[tuple[str, str], _Asked] = {}
    answers: dict[Answer, list[str]] = {}
    settled = [(one, _settled(one, sure)) for one in asked]
    written = {word for word in words if word.startswith("--")}
    written |= {flag for one, row in settled for flag in _main_flag(row.act(one.words))}
    for one, row in settled:
        _take(one, row.act(one.words), written, made, parts, answers)
    _join(asked, made, parts, own_words=words, given=given, others=sure)
    made.faults += [_fault(answer, flags, made.instead(answer.use)) for answer, flags in answers.items()]
    flags = {one.name for one in asked}
    if flags & ENGINE_FLAGS and not flags & FLEET and not any(word.startswith("--replica") for word in words):
        made.faults.append(f"{min(flags & ENGINE_FLAGS)}: {ENGINES}: use --replica URL")
        made.instead(["--replica", "URL"])
    return made


def _split(words: Sequence[str], own: Collection[str], made: Translation, asked: list[_Asked]) -> None:
    """Takes their flags out of the words; ours, and what nobody knows, stay in their order."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        following = value if equals else next(iter(rest), "")
        found = _find(flag, following)
        if not found or (flag in own and following not in found[0].known):
            made.words.append(word)
            continue
        taken = (value,) if equals else tuple(_values(found[0], rest))
        if found[0].values is not Values.NONE and not taken:
            made.faults.append(f"{flag}: expected a value")
            continue
        letters = frozenset(letter for row in found for letter in row.programs)
        prefixed = flag != found[0].flag
        asked.append(_Asked(found, letters & frozenset(SERVES) if prefixed else letters, flag, taken))


def _find(flag: str, following: str) -> tuple[Row, ...]:
    """The rows of a flag that take what follows. They take equally many words."""
    found = [row for row in ROWS if row.flag == flag]
    if not found and (prefix := next(filter(flag.startswith, PREFIXES), "")):
        bare = flag.replace(prefix, prefix.removesuffix("router-"), 1)
        found = [row for row in ROWS if row.flag == bare]
    alone = not following or following.startswith("-")
    fitting = [row for row in found if (row.values is Values.NONE) == alone] or found
    return tuple(row for row in fitting if row.values is fitting[0].values)


def _values(row: Row, rest: list[str]) -> Iterator[str]:
    """Takes the values of a flag off the words that follow it."""
    most = {Values.NONE: 0, Values.ONE: 1, Values.MANY: len(rest)}[row.values]
    while most > 0 and rest and (not rest[0].startswith("-") or rest[0][1:].isdigit()):
        most -= 1
        yield rest.pop(0)


def _program(asked: Sequence[_Asked], programs: Sequence[Program]) -> Program:
    """Whose command line it is: the first program that knows most of the flags."""
    return max(programs, key=lambda program: sum(program.letter in one.programs for one in asked))


def _sure(asked: Sequence[_Asked], programs: Sequence[Program]) -> tuple[Program, ...]:
    """The programs whose command line it may be: those that know every flag, or all if none does."""
    knowing = (program for program in programs if all(program.letter in one.programs for one in asked))
    return tuple(knowing) or tuple(programs)


def _settled(one: _Asked, programs: Sequence[Program]) -> Row:
    """The row that counts: that of all these programs, else the one that is safe in each."""
    letters = {program.letter for program in programs} & one.programs
    fitting = [row for row in one.rows if letters & set(row.programs)]
    if len(fitting) == 1:
        return fitting[0]
    return next((row for row in one.rows if not row.programs), one.rows[0])


def _main_flag(outcome: Outcome) -> Sequence[str]:
    """The flag of ours that one of theirs becomes, without those that it implies."""
    return outcome.words[:1] if isinstance(outcome, Became) else ()


def _take(
    one: _Asked,
    outcome: Outcome,
    others: Collection[str],
    made: Translation,
    parts: dict[tuple[str, str], _Asked],
    answers: dict[Answer, list[str]],
) -> None:
    """Notes what one flag becomes. What it implies does not count beside a flag that says it (``others``)."""
    written = shlex.join([one.flag, *one.words])
    if isinstance(outcome, Became):
        words = list(outcome.words[:2])
        for flag, value in zip(outcome.words[2::2], outcome.words[3::2], strict=True):
            words += [] if flag in others and flag != words[0] else [flag, value]
        made.words += words
        note = f" ({outcome.note})" if outcome.note else ""
        made.said.append((written, shlex.join(words) + note))
    elif isinstance(outcome, Part):
        parts[outcome.option, outcome.half] = one
    elif isinstance(outcome, Unneeded):
        made.said.append((one.flag, f"not needed: {outcome.why}"))
    elif isinstance(outcome, Answer):
        answers.setdefault(outcome, []).append(one.flag)


def _fault(answer: Answer, flags: Sequence[str], other: str) -> str:
    instead = f": use {shlex.join(answer.use)}" if answer.use else ""
    instead += f" instead of {other}" if other else ""
    return f"{', '.join(dict.fromkeys(flags))}: {answer.why}{instead}"


def _join(
    asked: Sequence[_Asked],
    made: Translation,
    parts: Mapping[tuple[str, str], _Asked],
    *,
    own_words: Sequence[str],
    given: Collection[str],
    others: Sequence[Program],
) -> None:
    """Makes addresses of hosts and ports, with the program's defaults where a whole command line is meant."""
    program = made.program or PROGRAMS[0]
    whole = any(one.name in FLEET for one in asked)
    elsewhere: dict[str, list[str]] = {}
    for other in others:
        if other.listen[0] != program.listen[0]:
            elsewhere.setdefault(other.listen[0], []).append(other.name)
    ours = {word.partition("=")[0] for word in own_words}
    listen = program.listen
    for option, standard, theirs in (
        ("listen", listen if whole else (listen[0], 8080), ("--host", "--port")),
        ("admin", program.metrics, ("--prometheus-host", "--prometheus-port")),
    ):
        halves = [parts.get((option, half)) for half in ("host", "port")]
        host, port = (half.words[0] if half is not None else None for half in halves)
        written = [shlex.join([half.flag, *half.words]) for half in halves if half is not None]
        if f"--{option}" in ours:
            if written:
                made.faults.append(f"{written[0]}: --{option} is given too: expected one of both")
            continue
        if not written and (standard is None or not whole or f"--{option}" in given):
            continue
        default = standard or listen
        address = _address(host or default[0], port or str(default[1]))
        made.words[:0] = [f"--{option}", address]
        left_out = "" if written else f" (as {program.name} without {theirs[1]})"
        if option == "listen" and host is None:
            for there, names in elsewhere.items():
                left_out += f"; {' and '.join(names)} would listen on {there}: add --host {there} for that"
        made.said.insert(0, (" ".join(written) or "(its default)", f"--{option} {address}{left_out}"))
    if whole and program.metrics is None:
        made.said.append(("(its /metrics)", "on the admin listener: --admin HOST:PORT"))


def _address(host: str, port: str) -> str:
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"
