"""The key of ``--isolate-tenants``: where it comes from, and what is said of it."""

import base64
import logging
from pathlib import Path

import pytest

from skylb.config import Settings
from skylb.errors import ConfigError
from skylb.isolation import KEY_BYTES, WORD_LEN_MIN, IsolationKey, read_isolation_key
from skylb.mesh.signing import block_secret, parse_keys
from skylb.options import load

WORD = "a-word-that-is-long-enough"
KEYS = parse_keys(f"k1:{base64.b64encode(b'x' * 16).decode()}\nk2:{base64.b64encode(b'y' * 16).decode()}")
OTHERS = parse_keys(f"k2:{base64.b64encode(b'y' * 16).decode()}")


def write(directory: Path, word: str) -> Path:
    path = directory / "key"
    path.write_text(word)
    return path


def test_a_file_gives_the_same_key_everywhere_whatever_the_mesh_has(tmp_path: Path) -> None:
    path = write(tmp_path, WORD)
    first = IsolationKey(path, None)
    assert len(first.key) == KEY_BYTES
    assert WORD.encode() not in first.key
    assert IsolationKey(path, KEYS).key == first.key
    assert not first.drawn
    assert IsolationKey(write(tmp_path, WORD + "x"), None).key != first.key


def test_without_a_file_the_first_secret_of_the_mesh_gives_it_and_it_is_none_of_the_others() -> None:
    first = IsolationKey(None, KEYS)
    assert first.key == IsolationKey(None, KEYS).key
    assert not first.drawn
    others = {block_secret(KEYS), KEYS.first.secret, KEYS.mark_key, IsolationKey(None, OTHERS).key}
    assert first.key not in others


def test_without_either_each_start_draws_one() -> None:
    one, other = IsolationKey(None, None), IsolationKey(None, None)
    assert one.drawn
    assert other.drawn
    assert one.key != other.key


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("x" * (WORD_LEN_MIN - 1), f"expected {WORD_LEN_MIN} characters or more"),
        ("two words of a file", "expected one word of printable ASCII"),
        ("", "expected one word of printable ASCII"),
    ],
)
def test_a_word_that_is_none_is_refused_without_being_shown(tmp_path: Path, word: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_isolation_key(write(tmp_path, word))
    (fault,) = caught.value.faults
    assert fault == f"isolation_key_file: {tmp_path / 'key'}: {said}"


def test_another_key_is_remarked_once_and_does_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, WORD)
    key = IsolationKey(path, None)
    before = key.key
    with caplog.at_level(logging.WARNING, "skylb.isolation"):
        key.look()
        assert not caplog.messages
        write(tmp_path, "another-" + WORD)
        for _ in range(3):
            key.look()
        assert len(caplog.messages) == 1
        assert "it counts after a restart" in caplog.messages[0]
        assert WORD not in caplog.text
        write(tmp_path, WORD)
        key.look()
        assert len(caplog.messages) == 1, "it is the old one again"
    assert key.key == before
    path.unlink()
    with pytest.raises(ConfigError):
        key.look()


def test_a_key_without_isolation_is_a_conflict_that_names_both(tmp_path: Path) -> None:
    path = str(write(tmp_path, WORD))
    with pytest.raises(ConfigError) as caught:
        load(Settings, flags={"replica": ["http://a"], "isolation_key_file": [path]})
    assert caught.value.faults == ["isolation_key_file is given without isolate_tenants: expected both"]
