"""The fleet of a recording, as a scenario that replays it.

The engine knows a replica by its times to a first token: at each decode load a base and a time per computed
token. From these come the parameters of a replica's model (`skylb.tools.mock.profiles`), as far as they go:

- A request that meets an idle replica waits for one step: the base at the lowest load is ``step_base_us``.
- A prompt token takes ``prefill_token_us``, at every load about the same.
- A request that meets a busy one waits for half a step on average, and for its own. So the base grows per
  running request by one and a half times ``decode_seq_us``.
"""

from dataclasses import dataclass
from hashlib import sha256
from statistics import median
from typing import Any

import msgspec

NAME = "scenario.toml"

PROFILE = "h100-8b"
"""What is not known is as in this profile of the mock replicas."""

_SIGN = "# As it was written, its SHA-256: "

_WAIT_STEPS = 1.5

_TYPICAL_TOKENS = 500
_ALIKE = 1.6
"""Replicas are of one kind if a prompt of typical length takes up to so many times as long."""


@dataclass(frozen=True, slots=True)
class Balancer:
    """What a scenario says of the balancer.

    Attributes:
        region: its region.
        engine: its engine's settings that are not the defaults.
        block_tokens: tokens of one of its blocks, about.
    """

    region: str
    engine: dict[str, Any]
    block_tokens: int


class _Replica(msgspec.Struct, frozen=True):
    name: str
    ready: bool = False
    removed: bool = False
    capacity_blocks: int = 0
    speed: list[tuple[float, float, float]] = []


class _State(msgspec.Struct, frozen=True):
    replicas: list[_Replica]
    policy: str | None = None


def scenario(balancer: Balancer, state: bytes, recorded_s: float) -> str:
    """The scenario file.

    Args:
        balancer: what was recorded.
        state: the engine's state, as JSON.
        recorded_s: length of the recording.
    """
    known = msgspec.json.decode(state, type=_State)
    replicas = [one for one in known.replicas if not one.removed]
    engine = balancer.engine if known.policy is None else balancer.engine | {"policy": known.policy}
    kinds = _kinds([_known(one, balancer.block_tokens) for one in replicas])
    text = [
        "# Written by skylb serve --record, and renewed while it records. Run it: skylb sim DIR",
        "# The replicas are as the balancer has seen them. Their speed and size are estimates: correct them",
        "# where you know better. A changed file is kept as it is.",
        "",
        f"duration_s = {max(1.0, recorded_s):.0f}",
        "",
        "[clients]",
        'mode = "sessions"  # "open": every request at its time, whatever the answers before it take',
        "",
        "[workload]",
        'kind = "file"',
        'path = "."',
        f"region = {_quoted(balancer.region)}",
        "",
        "[engine]",
        *(f"{name} = {_value(value)}" for name, value in engine.items()),
        "",
        "[[regions]]",
        f"name = {_quoted(balancer.region)}",
    ]
    for kind in kinds:
        text += ["", "[[regions.replicas]]", f"count = {len(kind)}", f'profile = "{PROFILE}"']
        if override := _override(kind):
            text += ["[regions.replicas.override]", *override]
    if not replicas:
        text += ["", "# No replica was known.", "[[regions.replicas]]", "count = 1"]
    return "\n".join(text) + "\n"


def signed(text: str) -> str:
    """A scenario with a last line by which a change shows."""
    return f"{text}{_SIGN}{sha256(text.encode()).hexdigest()}\n"


def is_unchanged(text: str) -> bool:
    """Whether a file is as `signed` has made it."""
    before, sign, _ = text.rpartition(_SIGN)
    return bool(sign) and signed(before) == text


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one replica: tokens of its cache, and the times of its model in microseconds."""

    kv_tokens: int | None
    times: dict[str, float]

    @property
    def typical_us(self) -> float:
        """Time of a prompt of `_TYPICAL_TOKENS`."""
        return self.times.get("step_base_us", 0) + _TYPICAL_TOKENS * self.times.get("prefill_token_us", 0)


def _known(replica: _Replica, block_tokens: int) -> _Known:
    kv_tokens = int(_rounded(replica.capacity_blocks * block_tokens)) or None
    if not replica.speed:
        return _Known(kv_tokens, {})
    load, base_ns, token_ns = min(replica.speed)
    step_us = base_ns / (1 if load < 1 else _WAIT_STEPS) / 1000
    times = {"step_base_us": step_us, "prefill_token_us": token_ns / 1000}
    most, most_ns, _ = max(replica.speed)
    if most > load:
        times["decode_seq_us"] = max(0.0, (most_ns / _WAIT_STEPS / 1000 - step_us) / most)
    return _Known(kv_tokens, times)


def _kinds(replicas: list[_Known]) -> list[list[_Known]]:
    """Replicas of about the same cache and speed, the largest kind first."""
    kinds: list[list[_Known]] = []
    for one in sorted(replicas, key=lambda one: (one.kv_tokens or 0, one.typical_us)):
        first = kinds[-1][0] if kinds else None
        alike = first is not None and first.kv_tokens == one.kv_tokens
        if alike and first is not None and one.typical_us <= _ALIKE * first.typical_us:
            kinds[-1].append(one)
        else:
            kinds.append([one])
    return sorted(kinds, key=len, reverse=True)


def _override(kind: list[_Known]) -> list[str]:
    """The lines that say what is known of a kind: medians, to two digits."""
    lines = []
    if kind[0].kv_tokens is not None:
        lines += [f"kv_tokens = {kind[0].kv_tokens}", f"max_model_len = {kind[0].kv_tokens // 16 * 16}"]
    for name in ("step_base_us", "prefill_token_us", "decode_seq_us"):
        values = [one.times[name] for one in kind if name in one.times]
        if values:
            value = _rounded(median(values))
            lines.append(f"{name} = {value:g}" if value < 1e4 else f"{name} = {value:.0f}")
    return lines


def _rounded(value: float) -> float:
    """A value to two digits."""
    return float(f"{value:.2g}")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else f"{value}"


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
