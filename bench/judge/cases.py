"""What is judged: workloads, the fleets that serve them, and the bounds that users expect.

Each case names what it tests. The made-up workloads follow public traces (`skylb.tools.sim.workload`). The
traced cases use trace files of ``skylb load``, and are left out where there are none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from skylb.tools.sim.scenario import Clients, Region, Replicas, Scenario
from skylb.tools.sim.workload import Agent, Arena, File, Mix, SharedPrompt, Tree, WildChat, Workload

REGION = "us"
TRACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "examples"
"""Where trace files are looked for, beside the repository, if no directory is given."""

L4_TOKENS, H100_TOKENS = 16_000, 128_000
"""Longest request of each kind of replica: prompt and answer fit its ``max_model_len``."""

L4_ATTENTION_US, H100_ATTENTION_US = 0.0156, 0.0008
"""Attention costs an 8B model's prompt of 50k tokens x 1.8, one of 100k x 2.6, counted in operations."""


@dataclass(frozen=True)
class Case:
    """One workload and the fleet that serves it.

    Attributes:
        name: how it is told from the others.
        about: what it tests, in a few words.
        workload: its requests.
        fleet: the replicas of its one region.
        capacity_per_s: sessions/s that half of the rules sustain, as once measured. The judge starts its
            search there and measures it again; `bench.judge.paired` takes it as it is.
        ttft_bound_s: 90 % of the requests must get their first token within it.
        inter_token_bound_s: 99 % of the tokens must follow the one before within it.
        max_tokens: longest answer; ``None``: as the workload says.
        duration_s: requests are sent until then.
        warmup_s: requests sent before are not measured.
    """

    name: str
    about: str
    workload: Workload
    fleet: tuple[Replicas, ...]
    capacity_per_s: float
    ttft_bound_s: float
    inter_token_bound_s: float
    max_tokens: int | None = 512
    duration_s: float = 600.0
    warmup_s: float = 120.0

    def scenario(self, rate_per_s: float, seed: int) -> Scenario:
        """Sessions begin at a rate; all settings are those that SkyLB ships."""
        return Scenario(
            seed=seed,
            duration_s=self.duration_s,
            warmup_s=self.warmup_s,
            records=True,
            regions=[Region(name=REGION, replicas=list(self.fleet))],
            clients=Clients(mode="sessions", max_tokens=self.max_tokens),
            workload=msgspec.structs.replace(self.workload, rate_per_s=rate_per_s),
        )


def _l4(count: int, **override: Any) -> Replicas:
    return Replicas(count=count, profile="l4-8b", override=override)


def _h100(count: int, **override: Any) -> Replicas:
    return Replicas(count=count, profile="h100-8b", override=override)


L4 = (_l4(12),)
H100 = (_h100(4),)

_LONG = Arena(tokens_max=H100_TOKENS, single=0.9, long_share=0.08)
_MADE_AGENT = Agent(tokens_max=H100_TOKENS, think_s=0.5, think_spread=1.5)

MADE = (
    Case("arena", "conversations", Arena(tokens_max=L4_TOKENS), L4, 4.1, 2.0, 0.7),
    Case("wildchat", "conversations, less shared", WildChat(tokens_max=L4_TOKENS), L4, 4.1, 2.0, 0.7),
    Case(
        "shared_prompt",
        "conversations with 8 long system prompts",
        SharedPrompt(tokens_max=L4_TOKENS),
        L4,
        3.57,
        2.0,
        0.7,
    ),
    Case(
        "agent",
        "coding agents, made up",
        _MADE_AGENT,
        H100,
        0.809,
        0.5,
        0.04,
        max_tokens=None,
        duration_s=600.0,
        warmup_s=240.0,  # sessions of minutes: until as many end as begin
    ),
    Case("tree", "Tree of Thoughts", Tree(), L4, 3.24, 0.5, 0.3, duration_s=220.0, warmup_s=40.0),
    Case(
        "wide_tree",
        "the same, 4 branches and depth 3",
        Tree(branches=4, depth=3),
        L4,
        0.85,
        0.5,
        0.35,
        duration_s=240.0,
        warmup_s=60.0,
    ),
    Case("mix", "conversations and trees", Mix(tokens_max=L4_TOKENS), L4, 4.1, 2.0, 0.8),
    Case(
        "short_answers",
        "short prompts, answers of 20 tokens",
        Arena(tokens_max=L4_TOKENS, single=1.0, first_tokens=200, first_spread=0.6, answer_tokens=20),
        (_l4(6),),
        45.0,
        1.0,
        0.7,
        max_tokens=20,
        duration_s=200.0,
        warmup_s=40.0,
    ),
    Case(
        "one_turn",
        "one-turn sessions with 24 system prompts",
        Arena(
            tokens_max=L4_TOKENS,
            single=1.0,
            systems=24,
            system_tokens=1500,
            sessions_per_user=1,
            first_tokens=150,
            answer_tokens=150,
        ),
        L4,
        24.5,
        0.8,
        0.7,
        duration_s=300.0,
        warmup_s=60.0,
    ),
    Case(
        "tool_agent",
        "tool agents with long shared system prompts",
        Agent(
            systems=3,
            system_tokens=2000,
            turns=8.0,
            first_tokens=150,
            answer_tokens=60,
            answer_spread=0.8,
            result_tokens=120,
            think_s=1.0,
            think_spread=1.0,
            tokens_max=L4_TOKENS,
        ),
        L4,
        1.4,
        1.0,
        0.5,
    ),
    Case(
        "long_mix",
        "8 % of the prompts 30-100k, the others chat",
        _LONG,
        H100,
        13.5,
        1.5,
        0.22,
        duration_s=260.0,
        warmup_s=60.0,
    ),
    Case(
        "long_attention",
        "the same with the cost of attention",
        _LONG,
        (_h100(4, attention_us=H100_ATTENTION_US),),
        8.97,
        2.5,
        0.45,
        duration_s=400.0,
        warmup_s=100.0,
    ),
    Case(
        "reasoning",
        "answers of 1,000 tokens, small KV",
        Arena(single=1.0, first_tokens=300, answer_tokens=1240),
        (_h100(4, kv_tokens=131_072),),
        22.0,
        0.5,
        0.04,
        max_tokens=4096,
        duration_s=200.0,
        warmup_s=50.0,
    ),
    Case(
        "burst",
        "ten times the conversations for 20 s",
        WildChat(tokens_max=L4_TOKENS, burst_at_s=240.0, burst_s=20.0),
        L4,
        2.26,
        8.0,
        0.8,
    ),
    Case(
        "mixed_fleet",
        "conversations on 6 L4 and 3 H100",
        WildChat(tokens_max=L4_TOKENS),
        (_l4(6), _h100(3)),
        32.5,
        0.5,
        0.15,
        duration_s=200.0,
        warmup_s=50.0,
    ),
    Case(
        "large_kv",
        "conversations, 4 times the KV, attention",
        WildChat(tokens_max=L4_TOKENS),
        (_l4(12, kv_tokens=100_000, attention_us=L4_ATTENTION_US),),
        5.88,
        2.0,
        1.06,
    ),
    Case(
        "small_kv",
        "coding agents, a third of the KV",
        _MADE_AGENT,
        (_h100(4, kv_tokens=140_000),),
        0.315,
        0.5,
        0.05,
        max_tokens=None,
        duration_s=600.0,
        warmup_s=240.0,
    ),
)
"""Cases that need no file."""


def _file(directory: Path, name: str, tokens_max: int, scale: int = 1) -> File:
    path = str(directory / name)
    return File(path=path, shuffle=True, region=REGION, tokens_max=tokens_max, scale=scale)


def traced(directory: Path) -> tuple[Case, ...]:
    """Cases of trace files; sessions come in another order for each seed.

    Raises:
        FileNotFoundError: a file is missing; names it.
    """
    agent, chat, shared = (
        "agent_even_b8.jsonl.gz",
        "chat_wildchatlike_b64.jsonl.gz",
        "chat_sharedsys_b64.jsonl.gz",
    )
    for name in (agent, chat, shared):
        if not (directory / name).exists():
            raise FileNotFoundError(str(directory / name))
    return (
        Case(
            "trace_agent",
            "coding agents, traced, an eighth as long",
            _file(directory, agent, H100_TOKENS),
            H100,
            0.221,
            0.5,
            0.05,
            max_tokens=None,
            duration_s=1200.0,
            warmup_s=700.0,  # sessions of a quarter of an hour
        ),
        Case(
            "trace_agent_long",
            "the same half as long, attention",
            _file(directory, agent, H100_TOKENS, scale=4),
            (_h100(8, attention_us=H100_ATTENTION_US),),
            0.141,
            2.0,
            0.1,
            max_tokens=None,
            duration_s=1200.0,
            warmup_s=700.0,  # sessions of a quarter of an hour
        ),
        Case("trace_chat", "conversations, traced", _file(directory, chat, L4_TOKENS), L4, 3.7, 2.0, 0.8),
        Case(
            "trace_chat_long",
            "the same 8 times as long, on H100",
            _file(directory, chat, H100_TOKENS, scale=8),
            (_h100(6),),
            8.5,
            0.9,
            0.22,
            duration_s=320.0,
            warmup_s=80.0,
        ),
        Case(
            "trace_shared",
            "conversations with shared prompts, traced",
            _file(directory, shared, L4_TOKENS),
            L4,
            3.2,
            2.0,
            0.7,
        ),
    )


TRACED_NAMES = ("trace_agent", "trace_agent_long", "trace_chat", "trace_chat_long", "trace_shared")
NAMES: tuple[str, ...] = (*(case.name for case in MADE), *TRACED_NAMES)


def cases(names: Sequence[str] = (), traces: Path | None = None) -> tuple[list[Case], str]:
    """The named cases, or all, and why some are left out (empty: none is).

    Raises:
        KeyError: there is no case of a name; names it.
        FileNotFoundError: ``traces`` was given and lacks a file.
    """
    for name in names:
        if name not in NAMES:
            raise KeyError(name)
    found, reason = list(MADE), ""
    try:
        found += traced(traces or TRACES)
    except FileNotFoundError as error:
        if traces is not None:
            raise
        reason = f"left out, because there is no trace file {error}: {', '.join(TRACED_NAMES)}"
    wanted = [case for case in found if not names or case.name in names]
    left_out = not names or any(name in TRACED_NAMES for name in names)
    return wanted, reason if left_out else ""
