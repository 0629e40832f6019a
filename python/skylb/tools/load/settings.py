"""The settings of ``skylb load``."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from skylb.addresses import ReplicaUrl, parse_replica
from skylb.config import FILE, Bytes, Count, Expected, File, Group, Otherwise, Placeholder, Seconds
from skylb.settings.sections import COMMON

SYNTHETIC_SESSIONS_MAX = 1_000_000

OWN_HEADERS = frozenset(
    ("accept", "authorization", "connection", "content-length", "content-type", "host", "transfer-encoding")
)
"""Headers that a request has anyway, or that say how it is framed."""

ANY_REGION = ""
"""Region of a target that serves every region without a target of its own."""

LOCAL = "local"
"""Region of made-up users that need no name for it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one region's requests go."""

    region: str
    url: ReplicaUrl

    def __str__(self) -> str:
        """The form it is configured in."""
        return f"{self.region}={self.url}" if self.region else str(self.url)


def parse_target(text: str) -> Target:
    """Reads ``URL`` or ``REGION=URL``; a closing ``/v1`` is taken off.

    Raises:
        ValueError: says what is wrong with ``text``.
    """
    region, equals, url = text.rpartition("=")
    if equals and not region:
        raise ValueError("the region before = is missing")
    return Target(region, parse_replica(url.removesuffix("/").removesuffix("/v1")))


def _target(value: object) -> object:
    return parse_target(value) if isinstance(value, str) else value


def _workload(value: object) -> object:
    if isinstance(value, str):
        value = Path(value)
    if isinstance(value, Path) and not value.exists():
        raise ValueError("there is no such file")
    return value


TargetUrl = Annotated[Target, BeforeValidator(_target), PlainSerializer(str)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]


class SyntheticSettings(Group):
    """Conversations that are made up where no workload file is given."""

    regions: Annotated[
        tuple[str, ...],
        Expected("a name"),
        Field(max_length=64, description="Regions of users."),
        Otherwise("those of the targets"),
    ] = ()
    users: Annotated[Count, COMMON, Field(ge=1, le=100_000, description="Users per region.")] = 64
    sessions: Annotated[
        Count, COMMON, Field(ge=1, le=10_000, description="Conversations of each user, one after another.")
    ] = 8
    turns: Annotated[float, Field(ge=1, le=1000, description="Mean turns of a conversation (geometric).")] = (
        4.0
    )
    systems: Annotated[
        Count, Field(ge=0, le=10_000, description="Number of system prompts that users share. 0 sends none.")
    ] = 4
    system_tokens: Annotated[Tokens, COMMON, Field(description="Length of a system prompt, in tokens.")] = 256
    user_tokens: Annotated[
        Tokens, COMMON, Field(description="Mean length of a user's message, in tokens (exponential).")
    ] = 64
    answer_tokens: Annotated[
        Tokens, COMMON, Field(description="Mean length of an answer, in tokens (exponential).")
    ] = 128
    think_s: Annotated[
        Seconds, Field(ge=0, description="Mean pause before a user's next message (exponential).")
    ] = 5.0
    rate_per_s: Annotated[
        float,
        COMMON,
        Field(gt=0, le=1e6, description="open loop: new conversations per second and region (Poisson)."),
    ] = 2.0
    seed: Annotated[
        int, Field(ge=0, lt=1 << 63, description="Seed. The same seed gives the same conversations.")
    ] = 1


class LoadSettings(Group):
    """All settings of ``skylb load``."""

    target: Annotated[
        tuple[TargetUrl, ...],
        Expected("URL, or REGION=URL for one region's users"),
        Placeholder("[REGION=]URL"),
        COMMON,
        Field(
            min_length=1,
            max_length=1024,
            description="URL to send requests to. With REGION=, it gets the requests of that region's users; "
            "without, those of all other users. Several URLs of a region take turns.",
        ),
    ]
    workload: Annotated[
        Annotated[Path, BeforeValidator(_workload)] | None,
        Expected("the path of a file, or of a directory of recordings"),
        Placeholder("FILE"),
        COMMON,
        Field(
            description="Requests to send: a file of one JSON object per line, gzip or not, or a directory "
            "of recordings. Mooncake's format is read too. Without it, conversations are made up."
        ),
    ] = None
    skip_bad: Annotated[bool, Field(description="Leave out and count broken lines instead of stopping.")] = (
        False
    )
    sessions: Annotated[
        Count | None,
        Field(ge=1, description="Number of conversations to send, from the start of the workload."),
    ] = None
    mode: Annotated[
        Literal["closed", "open"],
        COMMON,
        Field(
            description="closed: users wait for answers and think. open: each request is sent at its time in "
            "the workload, without waiting for answers."
        ),
    ] = "closed"
    concurrency: Annotated[
        Count, COMMON, Field(ge=1, le=100_000, description="closed loop: users at once per region.")
    ] = 8
    ramp_s: Annotated[Seconds, Field(ge=0, description="closed loop: time over which users start.")] = 0.0
    in_flight_max: Annotated[
        Count,
        Field(
            ge=1,
            le=100_000,
            description="open loop: maximum number of requests in flight. A further one is not sent, and "
            "counts as failed.",
        ),
    ] = 4096
    time_scale: Annotated[
        float,
        COMMON,
        Field(gt=0, le=1e6, description="Factor on thinking and arrival times. 0.1 is ten times faster."),
    ] = 1.0
    rate_scale: Annotated[
        float, COMMON, Field(gt=0, le=1e6, description="open loop: factor on the arrival rate.")
    ] = 1.0
    duration_s: Annotated[
        Seconds | None, COMMON, Field(gt=0, description="Time after which nothing more is sent.")
    ] = None
    warmup_s: Annotated[
        Seconds,
        COMMON,
        Field(ge=0, description="Time at the start whose requests are sent but not measured."),
    ] = 0.0
    drain_s: Annotated[Seconds, Field(ge=0, description="Time for requests in flight at the end.")] = 30.0
    silence_s: Annotated[
        Seconds, Field(gt=0, description="Time without a byte after which a request counts as failed.")
    ] = 120.0
    connect_s: Annotated[Seconds, Field(gt=0, description="Time for the TCP and TLS handshake.")] = 5.0
    endpoint: Annotated[Literal["chat", "completions"], Field(description="API to call.")] = "chat"
    stream: Annotated[
        bool, Field(description="Ask for streams. Without them only whole answers are timed.")
    ] = True
    model: Annotated[
        str | None,
        COMMON,
        Field(
            min_length=1,
            max_length=256,
            description="Model to ask for.",
        ),
        Otherwise("the target's first model"),
    ] = None
    session_header: Annotated[
        str | None,
        Expected("the name of a header, as X-Session-ID, of letters, digits, dashes and underscores"),
        Field(
            pattern=r"^[A-Za-z0-9_-]{1,64}$",
            description="Header that names the conversation of each request, such as X-Session-ID. Some "
            "routers keep requests together by it.",
        ),
        Otherwise("no such header"),
    ] = None
    directives: Annotated[
        bool,
        COMMON,
        Field(
            description="Append to each prompt the answer that a mock replica should give. The next turn "
            "then finds that answer cached. Turn it off for real engines, which would read it as text."
        ),
    ] = True
    key_file: Annotated[
        File | None, FILE, COMMON, Field(description="File with an API key, sent as a bearer token.")
    ] = None
    ca_file: Annotated[
        File | None,
        FILE,
        Field(description="Certificates (PEM) that verify https targets, instead of the system's."),
    ] = None
    response_bytes_max: Annotated[
        Bytes, Field(ge=1024, description="Largest answer that is not a stream.")
    ] = 16 << 20
    progress: Annotated[
        Literal["auto", "lines", "off"],
        Field(description="Progress on stderr. auto: one live line on a terminal, else a line now and then."),
    ] = "auto"
    json_file: Annotated[
        Path | None,
        Expected("the path of a file to write"),
        COMMON,
        Field(description="File to write the report to, as JSON."),
    ] = None
    synthetic: SyntheticSettings = SyntheticSettings()

    @property
    def made(self) -> SyntheticSettings:
        """What is made up, for regions that have targets unless others are asked for."""
        if self.synthetic.regions:
            return self.synthetic
        regions = dict.fromkeys(target.region or LOCAL for target in self.target)
        return self.synthetic.model_copy(update={"regions": tuple(regions)})

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        if self.duration_s is not None and self.warmup_s >= self.duration_s:
            yield (
                {"warmup_s", "duration_s"},
                f"warmup_s is {self.warmup_s:g}: expected less than duration_s, {self.duration_s:g}",
            )
        if (self.session_header or "").lower() in OWN_HEADERS:
            yield (
                {"session_header"},
                f"session_header is {self.session_header}: expected a header that no request has anyway",
            )
        synthetic = self.made
        sessions = len(synthetic.regions) * synthetic.users * synthetic.sessions
        if sessions > SYNTHETIC_SESSIONS_MAX:
            yield (
                {"synthetic.regions", "synthetic.users", "synthetic.sessions"},
                f"synthetic: {sessions} sessions in all: expected at most {SYNTHETIC_SESSIONS_MAX}",
            )
