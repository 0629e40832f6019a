"""What a replica serves: its ``/v1/models``, read strictly and within bounds."""

import msgspec

MODELS_MAX = 1024
"""Models and adapters per replica; a longer list is refused."""

MODEL_ID_LEN_MAX = 256
"""Characters of a model's id."""

BODY_BYTES_MAX = 1 << 20


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None
    parent: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


_decoder = msgspec.json.Decoder(_Models)


def read_models(body: bytes) -> list[tuple[str, int | None]]:
    """Models and adapters as ``(id, max_model_len)``, sorted by id.

    vLLM lists a LoRA adapter with its base model as ``parent`` and without a length of its own: it
    takes over the parent's.

    Raises:
        ValueError: the body is no list of models, or beyond the bounds.
    """
    models = {model.id: model for model in _decoder.decode(body).data}
    if len(models) > MODELS_MAX:
        raise ValueError(f"more than {MODELS_MAX} models")
    if any(not 0 < len(name) <= MODEL_ID_LEN_MAX for name in models):
        raise ValueError(f"an id that is empty or over {MODEL_ID_LEN_MAX} characters")
    return [(name, _length(models[name], models)) for name in sorted(models)]


def _length(model: _Model, models: dict[str, _Model]) -> int | None:
    length = model.max_model_len
    if length is None and model.parent in models:
        length = models[model.parent].max_model_len
    return length if length is not None and length > 0 else None
