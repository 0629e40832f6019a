"""Settings of streams that go on at another replica."""

from typing import Annotated

from pydantic import Field

from skylb.settings.sections import CLIENTS
from skylb.settings.values import Bytes, Count, Group, Otherwise, Placeholder


class ContinuingSettings(Group):
    """A part of the settings of ``skylb serve``."""

    continue_streams: Annotated[
        bool,
        CLIENTS,
        Field(
            description="Let a stream whose replica dies, stalls or has to be left go on at another replica, "
            "from where it was. For that SkyLB asks engines for the ids of tokens (return_token_ids). "
            "Requests for which the rest would differ end with an error event as without it."
        ),
    ] = False
    continue_models: Annotated[
        tuple[str, ...],
        Placeholder("NAME"),
        Otherwise("all models"),
        CLIENTS,
        Field(
            max_length=64,
            description="Model whose streams go on at another replica under --continue-streams.",
        ),
    ] = ()
    continue_by_text: Annotated[
        bool,
        CLIENTS,
        Field(
            description="Let streams of /v1/messages go on too under --continue-streams. Engines send no ids "
            "of tokens there. So SkyLB keeps the text, and asks a replica for its ids (/tokenize) when the "
            "stream breaks. The text is tokenised anew, so what follows may be another answer.",
        ),
    ] = False
    continue_tokens_max: Annotated[
        Count,
        CLIENTS,
        Field(
            ge=1,
            description="Maximum number of ids of tokens, prompt and answer together, that are kept of one "
            "stream under --continue-streams. A longer one does not go on elsewhere.",
        ),
    ] = 262_144
    continue_bytes_max: Annotated[
        Bytes,
        CLIENTS,
        Field(
            ge=4096,
            description="Memory for the ids of all streams under --continue-streams, 4 bytes for each, and "
            "for their texts under --continue-by-text. A stream that does not fit does not go on elsewhere.",
        ),
    ] = 256 << 20
