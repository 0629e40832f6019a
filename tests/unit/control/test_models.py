"""Lists of models, as replicas give them."""

import json

import pytest

from skylb.control.models import MODEL_ID_LEN_MAX, MODELS_MAX, read_models


def body(*models: dict[str, object]) -> bytes:
    return json.dumps({"object": "list", "data": list(models)}).encode()


def models(listed: bytes) -> list[tuple[str, int | None]]:
    listing = read_models(listed)
    assert not listing.left_out
    return listing.models


def test_models_come_sorted_with_their_length() -> None:
    listed = body({"id": "b", "max_model_len": 4096, "root": "b"}, {"id": "a"})
    assert models(listed) == [("a", None), ("b", 4096)]


def test_an_adapter_takes_over_the_length_of_its_base_model() -> None:
    listed = body(
        {"id": "base", "max_model_len": 8192}, {"id": "lora", "parent": "base", "max_model_len": None}
    )
    assert models(listed) == [("base", 8192), ("lora", 8192)]


def test_an_adapter_without_known_base_has_no_length() -> None:
    assert models(body({"id": "lora", "parent": "gone"})) == [("lora", None)]


def test_a_length_that_cannot_be_is_unknown() -> None:
    assert models(body({"id": "a", "max_model_len": 0})) == [("a", None)]


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"[]",
        b'{"data": {}}',
        b'{"data": [{"id": 7}]}',
        b'{"data": ' + b"[" * 100_000,
        b'{"data": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
        b"\xff",
    ],
)
def test_what_is_no_list_of_models_is_refused(odd: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_models(odd)


@pytest.mark.parametrize(
    "odd",
    [
        b'{"id": 7}',
        b'{"name": "a"}',
        b'{"id": ""}',
        b'{"id": null}',
        b"7",
        b"[]",
        b'{"id": "\xff"}',
        b'{"id": "two\\nlines"}',
        b'{"id": "' + b"a" * (MODEL_ID_LEN_MAX + 1) + b'"}',
    ],
)
def test_an_entry_without_a_usable_id_is_left_out_and_the_others_stay(odd: bytes) -> None:
    listing = read_models(b'{"data": [{"id": "a"}, ' + odd + b', {"id": "b"}]}')
    assert [name for name, _ in listing.models] == ["a", "b"]
    assert listing.unfit == 1
    assert listing.left_out


@pytest.mark.parametrize(
    ("number", "length"),
    [
        (b"9" * 5_000, None),
        (b"-" + b"9" * 5_000, None),
        (b"9" * 40, (1 << 32) - 1),
        (b"1e400", None),
        (b"-1e300", None),
        (b"4096.0", 4096),
        (b"true", None),
        (b'"long"', None),
        (b"[" * 500 + b"]" * 500, None),
        (b'{"a": 1}', None),
    ],
)
def test_a_length_that_no_model_has_takes_nothing_from_its_id(number: bytes, length: int | None) -> None:
    listed = b'{"data": [{"id": "a", "max_model_len": ' + number + b', "parent": [[1e999]]}, {"id": "b"}]}'
    assert models(listed) == [("a", length), ("b", None)]


def test_of_a_list_beyond_the_bound_base_models_are_kept_first_and_then_by_name() -> None:
    adapters = [{"id": f"a{number:05}", "parent": "z"} for number in range(MODELS_MAX + 5)]
    listing = read_models(body(*reversed(adapters), {"id": "z", "max_model_len": 8}))
    assert len(listing.models) == MODELS_MAX
    assert listing.models[-1] == ("z", 8)
    assert listing.models[0] == ("a00000", 8)
    assert listing.models[-2] == (f"a{MODELS_MAX - 2:05}", 8)
    assert listing.over == 6
    assert "6 more than 1024" in listing.left_out


def test_the_rest_of_an_endless_list_is_not_read() -> None:
    listing = read_models(b'{"data": [{"id": "a"}' + b",1" * 100_000 + b',{"id": "z"}]}')
    assert listing.models == [("a", None)]
    assert listing.over + listing.unfit == 100_001
