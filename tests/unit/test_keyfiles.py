"""Files with secrets: one fault each, and never a word of what is in them."""

from pathlib import Path

import pytest

from skylb.config import Settings
from skylb.errors import ConfigError
from skylb.keyfiles import read_keys, read_secret, warn_exposed
from skylb.mesh.signing import FILE_BYTES_MAX
from skylb.options import secrets

SECRET = "MDEyMzQ1Njc4OWFiY2RlZg=="


def fault(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_keys(path)
    (said,) = caught.value.faults
    assert SECRET not in said
    return said.removeprefix(f"peer_key_file: {path}: ")


def test_no_file_is_no_secret() -> None:
    assert read_keys(None) is None
    assert read_secret(None, "admin_token_file") is None


def test_a_key_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"k1:{SECRET}\nk2:{SECRET}\n")
    keys = read_keys(path)
    assert keys is not None
    assert keys.first.id == "k1"
    assert keys.find("k2") is not None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"k1:" + SECRET.encode() + b":more\n", "line 1: expected KEYID:BASE64"),
        (b"\xff\xfe", "not UTF-8"),
        (b"#" * (FILE_BYTES_MAX + 1), f"over {FILE_BYTES_MAX} bytes"),
    ],
)
def test_a_key_file_that_is_none_is_one_fault(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(data)
    assert fault(path) == said


def test_a_key_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert "No such file" in fault(tmp_path / "missing")


def test_a_token_file_holds_one_word(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("word\n")
    assert read_secret(path, "admin_token_file") == "word"
    path.write_text("two words\n")
    with pytest.raises(ConfigError, match="expected one word"):
        read_secret(path, "admin_token_file")


def test_a_file_of_secrets_that_everybody_may_read_is_remarked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, mode in (("theirs", 0o644), ("groups", 0o640), ("mine", 0o600), ("writable", 0o602)):
        (tmp_path / name).write_text("secret")
        (tmp_path / name).chmod(mode)
    files = {name: tmp_path / name for name in ("theirs", "groups", "mine", "writable", "absent")}
    warn_exposed({**files, "none": None})
    assert [line.partition(":")[0] for line in caplog.messages] == ["theirs", "writable"]
    assert "secret" not in caplog.text.replace("secrets", "")


def test_every_setting_that_names_a_file_of_secrets_is_looked_at() -> None:
    named = secrets(Settings(replica=("http://a",)))
    assert {
        "admin_token_file",
        "replica_key_file",
        "tls_key",
        "peer_key_file",
        "peer_tls_key",
        "dns.key_file",
        "isolation_key_file",
    } <= {*named}
