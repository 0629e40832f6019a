"""Profiles and settings of ``skylb mock``."""

import json

import pytest

from skylb._core import ADMIT_OK, ReplicaModel
from skylb.addresses import ListenAddress
from skylb.errors import ConfigError
from skylb.options import load
from skylb.tools.mock.profiles import PROFILES, ProfileName
from skylb.tools.mock.settings import MockSettings

MS_NS = 1_000_000


def model(name: ProfileName, time_scale: float = 1.0) -> ReplicaModel:
    """A replica of a profile."""
    return ReplicaModel(PROFILES[name].model_json(time_scale))


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_one_that_the_model_takes(name: ProfileName) -> None:
    replica = model(name)
    assert replica.max_model_len == PROFILES[name].max_model_len
    assert PROFILES[name].fault() is None


def test_an_l4_prefills_512_tokens_in_300_ms_and_decodes_20_sequences_in_about_60() -> None:
    # Paper, sections 2 and 5: 512 tokens take about 300 ms, a batch step tens of milliseconds.
    replica = model("l4-8b")
    assert replica.submit(1, b"", b"x" * 2048, b"y" * 8, 0) == ADMIT_OK
    first_ns = replica.next_ns()
    assert first_ns == 300 * MS_NS
    for number in range(2, 21):
        replica.submit(number, b"", b"%04d" % number * 200, b"y" * 400, first_ns)
    replica.advance(4000 * MS_NS)
    begin_ns = replica.next_ns()
    assert begin_ns is not None
    assert replica.running == 19
    replica.advance(begin_ns)
    end_ns = replica.next_ns()
    assert end_ns is not None
    assert 50 * MS_NS < end_ns - begin_ns < 70 * MS_NS


def test_the_kv_room_of_an_l4_bounds_its_batch_to_what_the_paper_saw() -> None:
    # Paper: admissible concurrency of 20 to 50. Conversations of 500 to 1,200 tokens.
    replica = model("l4-8b")
    now_ns = 0
    for number in range(200):
        replica.submit(number, b"", b"%04d" % number * (400 + 3 * number), b"y" * 400, now_ns)
    for _ in range(60):
        now_ns = replica.next_ns() or 0
        replica.advance(now_ns)
    assert 20 <= replica.running <= 50
    replica.check_invariants()


@pytest.mark.parametrize("time_scale", [0.001, 0.1, 7.0])
def test_a_time_scale_multiplies_every_time(time_scale: float) -> None:
    scaled, plain = model("h100-8b", time_scale), model("h100-8b")
    for replica in (scaled, plain):
        replica.submit(1, b"", b"x" * 4000, b"y" * 40, 0)
    for _ in range(10):
        scaled_ns, plain_ns = scaled.next_ns(), plain.next_ns()
        assert scaled_ns is not None
        assert plain_ns is not None
        assert scaled_ns == pytest.approx(plain_ns * time_scale, abs=10, rel=1e-6)
        scaled.advance(scaled_ns)
        plain.advance(plain_ns)


def test_an_instant_replica_takes_no_time_at_all() -> None:
    replica = model("instant")
    replica.submit(1, b"", b"x" * 400_000, b"y" * 4000, 5)
    assert replica.next_ns() == 5
    assert len(replica.advance(5)) == 1000


def test_given_values_replace_the_profiles() -> None:
    settings = MockSettings(kv_tokens=200_000, max_num_seqs=8, step_base_us=1000)
    profile = settings.effective_profile()
    assert (profile.kv_tokens, profile.max_num_seqs, profile.step_base_us) == (200_000, 8, 1000)
    assert profile.max_model_len == PROFILES["l4-8b"].max_model_len
    assert json.loads(profile.model_json())["step_base_ps"] == 10**9


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"kv_tokens": ["1000"]}, "max_model_len"),
        ({"max_num_batched_tokens": ["8"]}, "max_num_batched_tokens"),
        ({"tls_cert": [__file__]}, "tls_key"),
        ({"count": ["2"], "listen": ["127.0.0.1:65535"]}, "65535"),
        ({"count": ["2"], "listen": ["unix:/tmp/x"]}, "Unix"),
        ({"model": ["a", "a"]}, "distinct"),
        ({"fault.error_rate": ["1.5"]}, "fault-error-rate"),
    ],
)
def test_settings_that_cannot_work_are_a_fault_of_the_configuration(
    flags: dict[str, list[str]], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load(MockSettings, flags=flags)


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = MockSettings()
    assert settings.listen == ListenAddress("127.0.0.1", 8101)
    assert (settings.count, settings.profile, settings.time_scale, settings.keep_alive_s) == (
        1,
        "l4-8b",
        1.0,
        5.0,
    )
    assert list(settings.conflicts()) == []
