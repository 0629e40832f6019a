"""Lists of models, as replicas give them."""

import json

import pytest

from skylb.control.models import MODEL_ID_LEN_MAX, MODELS_MAX, read_models


def body(*models: dict[str, object]) -> bytes:
    return json.dumps({"object": "list", "data": list(models)}).encode()


def test_models_come_sorted_with_their_length() -> None:
    listed = body({"id": "b", "max_model_len": 4096, "root": "b"}, {"id": "a"})
    assert read_models(listed) == [("a", None), ("b", 4096)]


def test_an_adapter_takes_over_the_length_of_its_base_model() -> None:
    listed = body(
        {"id": "base", "max_model_len": 8192}, {"id": "lora", "parent": "base", "max_model_len": None}
    )
    assert read_models(listed) == [("base", 8192), ("lora", 8192)]


def test_an_adapter_without_known_base_has_no_length() -> None:
    assert read_models(body({"id": "lora", "parent": "gone"})) == [("lora", None)]


def test_a_length_that_cannot_be_is_unknown() -> None:
    assert read_models(body({"id": "a", "max_model_len": 0})) == [("a", None)]


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"[]",
        b'{"data": {}}',
        b'{"data": [{"id": 7}]}',
        b'{"data": [{"name": "a"}]}',
        b'{"data": [{"id": ""}]}',
        b'{"data": [{"id": "a", "max_model_len": "long"}]}',
        b"\xff",
        body({"id": "a" * (MODEL_ID_LEN_MAX + 1)}),
        body(*({"id": str(number)} for number in range(MODELS_MAX + 1))),
    ],
)
def test_what_is_no_list_of_models_is_refused(odd: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_models(odd)
