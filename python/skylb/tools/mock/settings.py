"""The settings of ``skylb mock``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from skylb.addresses import ListenAddress
from skylb.config import FILE, LISTEN, Bytes, Count, File, Group, Listen, Otherwise, Placeholder
from skylb.settings.sections import COMMON
from skylb.tools.mock.faults import Faults
from skylb.tools.mock.profiles import PROFILES, Profile, ProfileName

_PROFILE = Profile.model_fields
_PORT_MAX = 65_535


def _override(name: str) -> str:
    return _PROFILE[name].description or ""


THE_PROFILE = Otherwise("the profile's")


GUARDED = ("/v1", "/v2", "/inference", "/cohere")
"""Beginnings of the paths that vLLM's ``--api-key`` guards (``GUARDED_PREFIX``)."""


class MockSettings(Group):
    """Replicas that answer like vLLM from a model of one, many in one process."""

    listen: Annotated[
        Listen, LISTEN, COMMON, Field(description="Address of the first replica. Port 0 takes free ports.")
    ] = ListenAddress("127.0.0.1", 8101)
    count: Annotated[
        Count, COMMON, Field(ge=1, le=4096, description="Number of replicas, on consecutive ports.")
    ] = 1
    model: Annotated[
        tuple[str, ...],
        COMMON,
        Field(
            min_length=1, max_length=64, description="Name of the model. Further names are adapters of it."
        ),
    ] = ("mock",)
    profile: Annotated[
        ProfileName, COMMON, Field(description="Kind of replica: its sizes, limits and speeds.")
    ] = "l4-8b"
    time_scale: Annotated[
        float,
        COMMON,
        Field(gt=0, le=1e6, description="Factor on all times of the profile. 0.1 is ten times faster."),
    ] = 1.0
    block_size: Annotated[Count | None, THE_PROFILE, Field(ge=1, description=_override("block_size"))] = None
    kv_tokens: Annotated[Count | None, THE_PROFILE, Field(ge=1, description=_override("kv_tokens"))] = None
    max_model_len: Annotated[
        Count | None, THE_PROFILE, Field(ge=2, description=_override("max_model_len"))
    ] = None
    max_num_seqs: Annotated[Count | None, THE_PROFILE, Field(ge=1, description=_override("max_num_seqs"))] = (
        None
    )
    max_num_batched_tokens: Annotated[
        Count | None, THE_PROFILE, Field(ge=1, description=_override("max_num_batched_tokens"))
    ] = None
    max_num_queued_reqs: Annotated[
        Count | None,
        Otherwise("no limit"),
        Field(ge=0, description=_override("max_num_queued_reqs")),
    ] = None
    step_base_us: Annotated[float | None, THE_PROFILE, Field(ge=0, description=_override("step_base_us"))] = (
        None
    )
    prefill_token_us: Annotated[
        float | None, THE_PROFILE, Field(ge=0, description=_override("prefill_token_us"))
    ] = None
    attention_us: Annotated[float | None, THE_PROFILE, Field(ge=0, description=_override("attention_us"))] = (
        None
    )
    decode_seq_us: Annotated[
        float | None, THE_PROFILE, Field(ge=0, description=_override("decode_seq_us"))
    ] = None
    context_token_us: Annotated[
        float | None, THE_PROFILE, Field(ge=0, description=_override("context_token_us"))
    ] = None
    number_tokens: Annotated[
        bool,
        Field(description="Answer with the number of each token, in four digits, in place of other text."),
    ] = False
    keep_alive_s: Annotated[
        float,
        Field(gt=0, le=86_400, description="Time after which an idle connection is closed, as vLLM does."),
    ] = 5.0
    body_bytes_max: Annotated[Bytes, Field(ge=1, description="Largest request body.")] = 64 << 20
    metrics_bytes: Annotated[
        Bytes, Field(ge=0, description="Size to which /metrics is padded. vLLM's page has 50 kB.")
    ] = 0
    completions_log: Annotated[
        Path | None,
        Field(description="File to append one JSON line per request to, with how it ended."),
    ] = None
    api_key: Annotated[
        tuple[str, ...],
        Placeholder("KEY"),
        COMMON,
        Field(
            max_length=64,
            description="Key that a guarded path asks for as Authorization: Bearer KEY. Each of several keys "
            "is accepted.",
        ),
    ] = ()
    api_key_guards: Annotated[
        tuple[str, ...],
        Placeholder("PREFIX"),
        Otherwise("those that vLLM guards"),
        Field(
            max_length=64,
            description="Beginning of the paths that --api-key guards. vLLM leaves /metrics open.",
        ),
    ] = GUARDED
    seed: Annotated[
        int,
        COMMON,
        Field(
            ge=0,
            lt=1 << 64,
            description="Seed of the random choice of requests that fail. The same seed chooses the same.",
        ),
    ] = 0
    tls_cert: Annotated[File | None, FILE, Field(description="Certificate chain (PEM).")] = None
    tls_key: Annotated[File | None, FILE, Field(description="Private key (PEM) of --tls-cert.")] = None
    fault: Faults = Faults()

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        if (fault := self.effective_profile().fault()) is not None:
            yield {name for name in _PROFILE if name in type(self).model_fields}, fault
        if (self.tls_cert is None) != (self.tls_key is None):
            yield {"tls_cert", "tls_key"}, "tls_cert and tls_key: expected both or neither"
        if self.listen.unix and self.count > 1:
            yield {"listen", "count"}, f"count is {self.count}: expected 1 for a Unix socket"
        if self.listen.port and self.listen.port + self.count - 1 > _PORT_MAX:
            yield {"listen", "count"}, f"count is {self.count}: the ports would end beyond {_PORT_MAX}"
        if len(set(self.model)) < len(self.model):
            yield {"model"}, "model: expected distinct names"

    def effective_profile(self) -> Profile:
        """The profile with what was given instead of its values."""
        given = {name: value for name in _PROFILE if (value := getattr(self, name)) is not None}
        return PROFILES[self.profile].model_copy(update=given)
