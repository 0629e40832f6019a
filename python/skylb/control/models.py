"""The models that a replica serves: its ``/v1/models``, without entries that cannot be used."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

MODELS_MAX = 1024
"""Models and adapters kept of one replica's list: base models first, then by name."""

MODEL_ID_LEN_MAX = 256
"""Characters of a model's id; a longer one is left out."""

BODY_BYTES_MAX = 4 << 20
"""A list of models; vLLM writes some 500 bytes for each."""

ENTRIES_MAX = 16_384
"""Entries of a list that are read; the rest counts as left out."""

LENGTH_MAX = (1 << 32) - 1
"""Tokens that a model may take; more counts as this."""

_UNFIT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""What no id has that a client could ask for, and what would break a line of the log."""


_NULL = msgspec.Raw(b"null")


class _Model(msgspec.Struct):
    id: str
    max_model_len: msgspec.Raw = _NULL
    parent: msgspec.Raw = _NULL


class _Models(msgspec.Struct):
    data: list[msgspec.Raw]


_models = msgspec.json.Decoder(_Models)
_model = msgspec.json.Decoder(_Model)
_any = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Listing:
    """What is kept of a list of models."""

    models: list[tuple[str, int | None]]
    """Models and adapters as ``(id, max_model_len)``, sorted by id."""
    over: int = 0
    """Left out because there are more than `MODELS_MAX`."""
    unfit: int = 0
    """Left out because they cannot be read: no id, or one that is too long."""

    @property
    def left_out(self) -> str:
        """What is missing, for people; empty where nothing is."""
        told = [f"{self.over} more than {MODELS_MAX}"] if self.over else []
        told += [f"{self.unfit} without a usable id"] if self.unfit else []
        return " and ".join(told)


def read_models(body: bytes) -> Listing:
    """The models and adapters of a list; entries that cannot be understood are left out one by one.

    vLLM lists a LoRA adapter with its base model as ``parent`` and without a length of its own: it
    takes over the parent's.

    Raises:
        ValueError: the body is no list of models, or not one of its entries is one.
    """
    try:
        entries = _models.decode(body).data
    except RecursionError:
        raise ValueError("nested too deeply") from None
    models: dict[str, _Model] = {}
    unfit = 0
    for model in _read(entries[:ENTRIES_MAX]):
        if model is None:
            unfit += 1
        else:
            models.setdefault(model.id, model)
    if unfit and not models:
        raise ValueError("no entry has a usable id")
    parents = {name: _value(model.parent) for name, model in models.items()}
    kept = sorted(models, key=lambda name: (isinstance(parents[name], str), name))[:MODELS_MAX]
    lengths = {name: _tokens(_value(model.max_model_len)) for name, model in models.items()}
    served = [(name, _first(lengths[name], lengths, parents[name])) for name in sorted(kept)]
    over = len(models) - len(kept) + max(0, len(entries) - ENTRIES_MAX)
    return Listing(served, over, unfit)


def _read(entries: list[msgspec.Raw]) -> Iterator[_Model | None]:
    for entry in entries:
        try:
            model = _model.decode(entry)
        except (ValueError, RecursionError):
            yield None
            continue
        fit = 0 < len(model.id) <= MODEL_ID_LEN_MAX and not _UNFIT.search(model.id)
        yield model if fit else None


def _value(raw: msgspec.Raw) -> object:
    """A value that may be anything; ``None`` where it cannot be read."""
    try:
        return _any.decode(raw)
    except (ValueError, RecursionError):
        return None


def _first(length: int | None, lengths: dict[str, int | None], parent: object) -> int | None:
    return lengths.get(parent) if length is None and isinstance(parent, str) else length


def _tokens(value: object) -> int | None:
    """A length as an engine may write it; ``None`` where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    length = int(min(value, LENGTH_MAX))
    return length if length > 0 else None
