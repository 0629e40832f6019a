"""The binding of the replica model; its rules are tested in Rust."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skylb._core import ADMIT_FULL, ADMIT_OK, ADMIT_TOO_LONG, ReplicaModel
from skylb.tools.mock.profiles import PROFILES

SMALL = PROFILES["h100-8b"].model_copy(
    update={"kv_tokens": 320, "max_model_len": 160, "max_num_seqs": 4, "max_num_batched_tokens": 64}
)


def small(**changes: int) -> ReplicaModel:
    """A replica of twenty blocks of sixteen tokens."""
    return ReplicaModel(SMALL.model_copy(update=changes).model_json())


def test_a_profile_that_does_not_fit_is_a_value_error_that_names_the_field() -> None:
    with pytest.raises(ValueError, match="max_model_len"):
        small(kv_tokens=100)
    with pytest.raises(ValueError, match="EOF"):
        ReplicaModel(b"{")
    with pytest.raises(ValueError, match="unknown field"):
        ReplicaModel(SMALL.model_json()[:-1] + b',"speed":1}')


def test_an_id_in_use_is_a_value_error() -> None:
    replica = small()
    assert replica.submit(1, b"", b"x", b"y", 0) == ADMIT_OK
    with pytest.raises(ValueError, match="request 1"):
        replica.submit(1, b"", b"x", b"y", 0)


def test_admission_is_told_by_constants() -> None:
    replica = small(max_num_queued_reqs=1)
    assert replica.submit(1, b"", b"x" * 4 * 150, b"y" * 4 * 11, 0) == ADMIT_TOO_LONG
    assert replica.submit(1, b"", b"x" * 4 * 150, b"y" * 4 * 10, 0) == ADMIT_OK
    assert replica.submit(2, b"", b"x", b"y", 0) == ADMIT_FULL


@given(
    st.lists(
        st.tuples(st.binary(max_size=500), st.binary(max_size=100), st.sampled_from([b"", b"salt"])),
        max_size=30,
    ),
    st.sets(st.integers(0, 29)),
)
def test_every_request_generates_its_tokens_or_was_aborted(
    texts: list[tuple[bytes, bytes, bytes]], aborted: set[int]
) -> None:
    replica = small()
    wanted: dict[int, int] = {}
    now_ns = 0
    seen: dict[int, list[int]] = {}
    for number, (prompt, answer, salt) in enumerate(texts):
        tokens = max(1, -(-len(answer) // 4))
        assert replica.submit(number, salt, prompt, answer, now_ns) == ADMIT_OK
        wanted[number] = tokens
        now_ns = replica.next_ns() or now_ns
        for request, generated, cached, _ in replica.advance(now_ns):
            seen.setdefault(request, []).append(generated)
            assert 0 <= cached < max(1, -(-len(texts[request][0]) // 4))
        if number in aborted and replica.abort(number):
            del wanted[number]
        replica.check_invariants()
    for request, generated, _, finished in replica.advance(1 << 62):
        seen.setdefault(request, []).append(generated)
        assert finished == (generated == wanted[request])
    assert {request: list(range(1, tokens + 1)) for request, tokens in wanted.items()} == {
        request: generated for request, generated in seen.items() if request in wanted
    }
    assert (replica.running, replica.waiting, replica.kv_usage, replica.next_ns()) == (0, 0, 0.0, None)
