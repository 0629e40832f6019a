"""Kinds of replicas: sizes, limits and speeds. The values are written here and nowhere else.

Calibration of ``l4-8b`` (Llama-3.1-8B, 16 bit, on one L4). The paper gives a KV cache of about 25k tokens,
and about 300 ms for a prefill of 512 tokens. It gives an admissible concurrency of 20 to 50. Reading 16 GB
of weights at 300 GB/s takes 53 ms: that is the base of a step. 512 tokens at 0.488 ms make it 300 ms, 0.586
ms per token in all. A token of context is 128 KiB of KV, 0.44 us at that rate.

``h100-8b`` by the same reckoning: 16 GB at 3.35 TB/s are 5 ms, plus 3 ms for what the CPU does between
steps. Prefill is 40k tokens/s, a token of context 0.04 us. A step of 100 sequences then takes 8 to
12 ms.

``instant`` answers in no time at all, for measuring what stands in front of it.
"""

from typing import Annotated, Literal, get_args

import orjson
from pydantic import Field

from skylb.config import Count, Group

ProfileName = Literal["l4-8b", "h100-8b", "instant"]

_PS_PER_US = 1_000_000


class Profile(Group):
    """Parameters of a replica; sizes bear vLLM's names and are in tokens.

    One step takes ``step_base_us`` and, for what it computes, ``prefill_token_us`` per prompt token,
    ``attention_us`` per pair of such a token and one before it, ``decode_seq_us`` per sequence that gets
    one more token and ``context_token_us`` per token of context that those sequences attend to.
    """

    block_size: Annotated[Count, Field(ge=1, description="Tokens per KV block.")] = 16
    kv_tokens: Annotated[Count, Field(ge=1, description="Size of the KV cache in tokens.")]
    max_model_len: Annotated[
        Count, Field(ge=2, description="Maximum number of tokens of prompt and answer together.")
    ]
    max_num_seqs: Annotated[
        Count, Field(ge=1, description="Maximum number of sequences that run at once.")
    ] = 256
    max_num_batched_tokens: Annotated[
        Count, Field(ge=1, description="Maximum number of tokens computed per step.")
    ]
    max_num_queued_reqs: Annotated[
        Count | None,
        Field(
            ge=0,
            description="Maximum number of requests that wait or run. A further one gets 503.",
        ),
    ] = None
    step_base_us: Annotated[float, Field(ge=0, description="Microseconds that every step takes.")]
    prefill_token_us: Annotated[float, Field(ge=0, description="Microseconds per computed prompt token.")]
    attention_us: Annotated[
        float,
        Field(ge=0, description="Microseconds per pair of a computed prompt token and a token before it."),
    ] = 0.0
    decode_seq_us: Annotated[float, Field(ge=0, description="Microseconds per sequence that gets a token.")]
    context_token_us: Annotated[float, Field(ge=0, description="Microseconds per token of context.")]

    def fault(self) -> str | None:
        """What does not fit together, as one sentence; ``None`` where all does."""
        room = self.kv_tokens // self.block_size * self.block_size
        if self.max_model_len > room:
            return f"max_model_len is {self.max_model_len}: expected at most the KV room, {room} tokens"
        if self.max_num_batched_tokens < self.max_num_seqs:
            return (
                f"max_num_batched_tokens is {self.max_num_batched_tokens}: "
                f"expected at least max_num_seqs, {self.max_num_seqs}"
            )
        return None

    def model_json(self, time_scale: float = 1.0) -> bytes:
        """The form that ``_core.ReplicaModel`` reads; all times multiplied by ``time_scale``."""
        model = self.model_dump()
        for name in ("step_base", "prefill_token", "attention", "decode_seq", "context_token"):
            model[f"{name}_ps"] = round(model.pop(f"{name}_us") * time_scale * _PS_PER_US)
        return orjson.dumps(model)


PROFILES: dict[ProfileName, Profile] = {
    "l4-8b": Profile(
        kv_tokens=25_000,
        max_model_len=16_384,
        max_num_batched_tokens=2048,
        step_base_us=50_000,
        prefill_token_us=250_000 / 512,
        decode_seq_us=200,
        context_token_us=0.44,
    ),
    "h100-8b": Profile(
        kv_tokens=400_000,
        max_model_len=131_072,
        max_num_batched_tokens=8192,
        step_base_us=8000,
        prefill_token_us=25,
        decode_seq_us=10,
        context_token_us=0.04,
    ),
    "instant": Profile(
        kv_tokens=1 << 20,
        max_model_len=1 << 19,
        max_num_seqs=4096,
        max_num_batched_tokens=1 << 20,
        step_base_us=0,
        prefill_token_us=0,
        decode_seq_us=0,
        context_token_us=0,
    ),
}

if set(PROFILES) != set(get_args(ProfileName)):
    raise AssertionError("a profile has no name, or a name no profile")
