"""Token ids, as engines tell them with ``return_token_ids`` and take them as a prompt.

The id of a token is its text: four bytes, the first one highest. The last id of a prompt has one bit more. So
a prompt of ids tells where the answer begins that it goes on with. An answer directive is no part of a
prompt's text, but of its ids: without it, the rest of the answer would not be known.
"""

from dataclasses import dataclass

from skylb.tools.mock import errors
from skylb.tools.synthetic import TOKEN_BYTES, Answer

PROMPT_ENDS = 1 << 31
"""Set in the last id of a prompt; text is ASCII as far as it is generated, and has no such bit."""


@dataclass(frozen=True, slots=True)
class Given:
    """A prompt of ids, taken apart."""

    text: str
    """Of the prompt, with its answer directive."""
    answer: bytes
    """What has been answered, four bytes a token."""


def of_text(text: bytes) -> list[int]:
    """The ids of a text."""
    return [int.from_bytes(text[at : at + TOKEN_BYTES], "big") for at in range(0, len(text), TOKEN_BYTES)]


def of_prompt(prompt: bytes, answer: Answer | None) -> list[int]:
    """The ids of a prompt that is not empty, and of its directive."""
    ids = of_text(prompt) + of_text(b"" if answer is None else answer.directive().encode())
    ids[-1] |= PROMPT_ENDS
    return ids


def take_apart(ids: list[int]) -> Given:
    """The prompt of ids, and the part of its answer that they have.

    Raises:
        RefusedError: they are no tokens of this replica.
    """
    ends = next((index for index, token in enumerate(ids) if token >= PROMPT_ENDS), len(ids) - 1)
    try:
        prompt = b"".join(_bytes(token) for token in ids[: ends + 1])
        return Given(prompt.decode(), b"".join(_bytes(token) for token in ids[ends + 1 :]))
    except (OverflowError, UnicodeDecodeError) as error:
        raise errors.RefusedError(
            400, f"expected tokens of {TOKEN_BYTES} bytes of text", param="prompt"
        ) from error


def _bytes(token: int) -> bytes:
    return (token & ~PROMPT_ENDS).to_bytes(TOKEN_BYTES, "big").lstrip(b"\0")
