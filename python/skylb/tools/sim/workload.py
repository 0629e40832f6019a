"""Kinds of workloads: requests from a file, or made up after what was measured of real ones.

The made-up kinds follow statistics of public traces, whose lengths they reproduce to a few percent:

| kind | after | prompt tokens mean (P50), answer | requests per session |
|---|---|---|---|
| ``arena``, ``wildchat`` | Mooncake's conversations, an eighth as long | 1500 (860), 343 | 1.4 |
| ``shared_prompt`` | the same with eight long system prompts | 1950 (1370), 343 | 1.4 |
| ``agent`` | coding agents of kv-cache-tester | 16000 (13500), 442 | 22 |
| ``tree`` | Tree of Thoughts over GSM8K: depth 4, two branches | 440 (460), 98 | 30 |
| ``mix`` | half of the requests ``wildchat``, half ``tree`` | | |

``arena`` and ``wildchat`` differ in how much different users' prompts share: 8.3 and 2.5 % of the shorter
one (the paper's section 3). The one has few system prompts, the other more.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

Tokens = Annotated[int, Meta(ge=1, le=1_000_000)]
Spread = Annotated[float, Meta(ge=0, le=4)]
Share = Annotated[float, Meta(ge=0, le=1)]


class Kind(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """Fields of every kind of workload.

    Attributes:
        sessions: number of sessions. Without it, as many as the run can need.
        rate_per_s: sessions that begin per second, over all regions (Poisson). Closed loop ignores it.
        shares: shares of the sessions by region. Without them, as ``clients.users``, else equal.
        tokens_max: sessions with a longer request (prompt and answer together) are left out.
        burst_at_s: when a burst of sessions begins. Closed loop has no bursts.
        burst_s: how long the burst lasts. 0: there is none.
        burst_factor: how many times as often sessions begin during the burst.
    """

    sessions: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    rate_per_s: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    shares: dict[str, Annotated[float, Meta(ge=0, le=1e6)]] = {}
    tokens_max: Tokens | None = None
    burst_at_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    burst_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    burst_factor: Annotated[float, Meta(gt=0, le=1e4)] = 10.0


class Arena(Kind, frozen=True, tag="arena"):
    """Conversations like ChatBot Arena's. Lengths are log-normal.

    Attributes:
        sessions_per_user: conversations of each user.
        single: share of conversations of one turn.
        more_turns: mean number of turns beyond the first, of the others (geometric).
        first_tokens: median length of a first message.
        first_spread: sigma of a first message's length.
        next_tokens: median length of a further message.
        next_spread: sigma of a further message's length.
        answer_tokens: mean length of four of five answers (Weibull of shape 2.2). The others are a few words.
        think_s: median pause before a further message.
        think_spread: sigma of that pause.
        systems: number of system prompts (drawn after Zipf, exponent 1.1). 0: there are none.
        system_tokens: mean length of a system prompt.
        long_share: share of sessions whose first message is long, such as a document.
        long_min_tokens: shortest long message. Lengths are log-uniform.
        long_max_tokens: longest long message.
    """

    sessions_per_user: Annotated[int, Meta(ge=1, le=10_000)] = 40
    single: Share = 0.787
    more_turns: Annotated[float, Meta(ge=1, le=500)] = 1.97
    first_tokens: Tokens = 580
    first_spread: Spread = 1.2
    next_tokens: Tokens = 60
    next_spread: Spread = 1.0
    answer_tokens: Tokens = 421
    think_s: Annotated[float, Meta(ge=0, le=1e6)] = 19.0
    think_spread: Spread = 1.1
    systems: Annotated[int, Meta(ge=0, le=10_000)] = 2
    system_tokens: Tokens = 64
    long_share: Share = 0.0
    long_min_tokens: Tokens = 30_000
    long_max_tokens: Tokens = 100_000


class WildChat(Arena, frozen=True, tag="wildchat"):
    """Conversations like WildChat's: more system prompts, so that less is shared."""

    systems: Annotated[int, Meta(ge=0, le=10_000)] = 8


class SharedPrompt(Arena, frozen=True, tag="shared_prompt"):
    """Conversations with a few long system prompts."""

    sessions_per_user: Annotated[int, Meta(ge=1, le=10_000)] = 4
    systems: Annotated[int, Meta(ge=0, le=10_000)] = 8
    system_tokens: Tokens = 1024


class Agent(Kind, frozen=True, tag="agent"):
    """Coding agents: long prompts that grow by an answer and a tool's result each time.

    Attributes:
        sessions_per_user: sessions of each user.
        turns: mean number of requests of a session (geometric).
        first_tokens: median length of a task.
        first_spread: sigma of a task's length.
        answer_tokens: median length of an answer.
        answer_spread: sigma of an answer's length.
        result_tokens: median length of a tool's result.
        result_spread: sigma of that length.
        think_s: median time that a tool takes, at most 100 s.
        think_spread: sigma of that time.
        systems: number of system prompts (drawn after Zipf, exponent 1.1). 0: there are none.
        system_tokens: mean length of a system prompt.
    """

    sessions_per_user: Annotated[int, Meta(ge=1, le=10_000)] = 4
    turns: Annotated[float, Meta(ge=1, le=1000)] = 22.0
    first_tokens: Tokens = 800
    first_spread: Spread = 1.0
    answer_tokens: Tokens = 220
    answer_spread: Spread = 1.18
    result_tokens: Tokens = 90
    result_spread: Spread = 1.0
    think_s: Annotated[float, Meta(ge=0, le=1e6)] = 1.7
    think_spread: Spread = 1.8
    systems: Annotated[int, Meta(ge=0, le=10_000)] = 6
    system_tokens: Tokens = 2500


class Tree(Kind, frozen=True, tag="tree"):
    """Programs that explore, as Tree of Thoughts does: every request follows a branch of answers.

    Attributes:
        sessions_per_user: programs of each user.
        branches: requests that follow each answer. A program has ``b + b^2 + ... + b^depth``.
        depth: number of requests one after another.
        same: probability that a branch answers as its first sibling did (temperature 0: 1).
        question_tokens: median length of the program's question.
        question_spread: sigma of that length.
    """

    sessions_per_user: Annotated[int, Meta(ge=1, le=10_000)] = 8
    branches: Annotated[int, Meta(ge=1, le=8)] = 2
    depth: Annotated[int, Meta(ge=1, le=8)] = 4
    same: Share = 1.0
    question_tokens: Tokens = 57
    question_spread: Spread = 0.37


class Mix(Kind, frozen=True, tag="mix"):
    """Conversations and programs, mixed by request.

    Attributes:
        share: share of requests that are conversations'.
        chat: the conversations, of kind ``arena``, ``wildchat`` or ``shared_prompt``. The fields of every
            kind have no effect here; those of the mix count.
        tree: the programs, likewise.
    """

    share: Share = 0.5
    chat: Arena | WildChat | SharedPrompt = WildChat()
    tree: Tree = Tree()


class File(Kind, frozen=True, kw_only=True, tag="file"):
    """Requests of a trace file, as ``skylb load`` reads it, or the recordings of a directory.

    Attributes:
        path: file or directory of recordings, relative to the scenario's directory.
        skip_bad: leave out broken lines, and count them.
        shuffle: draw the order of the sessions by the seed, and begin them at ``rate_per_s``. Each seed is
            then another sample.
        region: region that all requests come from, instead of those in the file.
        model: model whose requests are taken. Without it, those of all models.
        from_s: time in the file from which requests are taken. It becomes the beginning.
        until_s: time in the file up to which requests are taken. Without it, to the end.
        scale: factor on the length of prompts and blocks, for traces that were stored with short blocks.
    """

    path: str
    skip_bad: bool = False
    shuffle: bool = False
    region: str | None = None
    model: str | None = None
    from_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    until_s: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    scale: Annotated[int, Meta(ge=1, le=1024)] = 1


Made = Arena | WildChat | SharedPrompt | Agent | Tree | Mix
"""Kinds that are made up."""

Workload = Made | File
