"""Keys are added and revoked in place: layout, comments and mode stay, and two at once take turns."""

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skylb.cli import main
from skylb.errors import ConfigError, SkyLBError
from skylb.keys.document import parse, read
from skylb.keys.edit import add_key, revoke_key

NOW = datetime(2026, 11, 30, 5, 0, tzinfo=UTC)
LAYOUT = f"""\
# ours, by hand
[tenants.acme]   # the first customer
requests_per_minute = 600

[[keys]]  # web
id   = "k1"   # of the web team
sha256 = '{"1" * 64}'
tenant = "acme"
# behind the first

[tenants.globex]
weight = 3

[[ keys ]]
sha256 = "{"2" * 64}"
tenant = "globex"
id = "k2"
revoked = 2030-01-01T00:00:00Z   # planned

# the end"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def test_a_key_for_a_file_that_is_not_there_makes_it_for_its_owner_alone(path: Path) -> None:
    key, key_id = add_key(path, "acme", {"weight": 2}, {"note": "web"})
    document = read(path)[1]
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", key)
    assert document.tenants["acme"].weight == 2
    (table,) = document.keys
    assert (table.id, table.tenant, table.note) == (key_id, "acme", "web")
    assert table.sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_more_leaves_all_that_was_there_byte_for_byte(path: Path) -> None:
    path.write_text(LAYOUT)
    path.chmod(0o640)
    _, key_id = add_key(path, "initech", {}, {"expires": NOW})
    text = path.read_text()
    assert text.startswith(f'{LAYOUT}\n\n[tenants.initech]\n\n[[keys]]\nid = "{key_id}"\n')
    assert text.endswith("expires = 2026-11-30T05:00:00Z\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.toml"], "nothing is left beside it"


def test_a_key_of_a_tenant_that_has_a_table_is_appended_alone(path: Path) -> None:
    path.write_text(LAYOUT)
    add_key(path, "acme", {}, {})
    assert path.read_text().count("[tenants.acme]") == 1
    with pytest.raises(ConfigError, match=r"tenants\.acme exists: change its terms in the file: weight"):
        add_key(path, "acme", {"weight": 2}, {})


def test_a_key_is_revoked_in_its_own_table(path: Path) -> None:
    path.write_text(LAYOUT)
    assert revoke_key(path, "k1", NOW) is None
    line = "revoked = 2026-11-30T05:00:00Z\n"
    assert path.read_text() == LAYOUT.replace("# of the web team\n", f"# of the web team\n{line}")
    assert revoke_key(path, "k1", NOW) == NOW, "it was revoked before"
    assert revoke_key(path, "k2", NOW) is None, "one that is revoked later is revoked now"
    assert "2030" not in path.read_text()
    assert [key.revoked for key in read(path)[1].keys] == [NOW, NOW]


def test_a_key_that_is_not_there_is_not_revoked(path: Path) -> None:
    path.write_text(LAYOUT)
    with pytest.raises(ConfigError, match="no key has this id"):
        revoke_key(path, "k3", NOW)
    assert path.read_text() == LAYOUT


INLINE = f'keys = [{{id = "k1", sha256 = "{"1" * 64}", tenant = "acme"}}]\n[tenants.acme]\n'
HIDDEN = (
    '[tenants.acme]\nmodels = ["""\n[[keys]]\n"""]\n'
    f'[[keys]]\nid = "k1"\nsha256 = "{"1" * 64}"\ntenant = "acme"\n'
)


@pytest.mark.parametrize("text", [INLINE, HIDDEN])
def test_a_file_of_another_form_is_left_alone(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match="only an editor can change this file"):
        revoke_key(path, "k1", NOW)
    assert path.read_text() == text


def test_a_broken_file_is_left_alone(path: Path) -> None:
    path.write_text("[[keys]]\n")
    with pytest.raises(ConfigError, match=r"keys\[1\]\.id: missing"):
        add_key(path, "acme", {}, {})
    assert path.read_text() == "[[keys]]\n"


def test_a_place_that_cannot_be_written_says_so(path: Path) -> None:
    with pytest.raises(SkyLBError, match="No such file or directory"):
        add_key(path.parent / "none" / "keys.toml", "acme", {}, {})


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path.symlink_to(tmp_path / "real" / "keys.toml")
    add_key(path, "acme", {}, {})
    add_key(path, "acme", {}, {})
    assert path.is_symlink()
    assert len(read(path)[1].keys) == 2


def test_a_write_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(LAYOUT)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SkyLBError, match="No space left on device"):
        add_key(path, "acme", {}, {})
    assert path.read_text() == LAYOUT
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.toml"]


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x10FFFF, exclude_categories=["Cs", "Cc"]))


NOTES = TEXT.filter(lambda text: len(text) <= 256)
TENANTS = st.from_regex(r"[\x21-\x7e]{1,40}", fullmatch=True)


@settings(deadline=None)
@given(note=NOTES, tenant=TENANTS)
def test_whatever_a_note_or_a_tenant_is_called_the_file_says_it_again(
    tmp_path_factory: pytest.TempPathFactory, note: str, tenant: str
) -> None:
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text(LAYOUT)
    terms: dict[str, Any] = {} if tenant in {"acme", "globex"} else {"models": [note or "m"]}
    _, key_id = add_key(path, tenant, terms, {"note": note})
    revoke_key(path, key_id, NOW)
    last = read(path)[1].keys[-1]
    assert (last.note, last.tenant, last.revoked) == (note, tenant, NOW)
    assert path.read_text().startswith(LAYOUT)


def test_of_keys_made_at_once_by_many_processes_none_is_lost(path: Path) -> None:
    command = [sys.executable, "-m", "skylb", "keys", "new", "--file", str(path), "--tenant", "acme"]
    made = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(6)]
    outputs = [process.communicate(timeout=50) for process in made]
    assert [process.returncode for process in made] == [0] * 6, outputs
    hashes = {hashlib.sha256(out.strip()).hexdigest() for out, _ in outputs}
    assert {key.sha256 for key in read(path)[1].keys} == hashes
    assert len(hashes) == 6


# ---------------------------------------------------------------------------- the command


def test_the_command_prints_the_key_alone_on_the_standard_output(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--file", str(path), "--tenant", "acme", "--expires-in", "90d", "--note", "ci [red]"]
    terms = ["--requests-per-minute", "60", "--class", "low", "--models", "a", "--models", "b"]
    assert main(["keys", "new", *words, *terms]) == 0
    out, err = capsys.readouterr()
    (key,) = out.split()
    (table,) = parse(path, path.read_bytes()).keys
    assert hashlib.sha256(key.encode()).hexdigest() == table.sha256
    assert key not in err
    assert table.id in err
    acme = read(path)[1].tenants["acme"]
    assert (acme.requests_per_minute, acme.class_, acme.models) == (60, "low", ["a", "b"])

    assert main(["keys", "list", "--file", str(path)]) == 0
    shown = capsys.readouterr().out
    assert {table.id, "acme", "valid", "ci [red]"} <= {cell.strip() for cell in shown.split("│")}
    assert main(["keys", "list", "--file", str(path), "--json"]) == 0
    listed = capsys.readouterr().out
    assert json.loads(listed)["state"] == "valid"

    assert main(["keys", "revoke", table.id, "--file", str(path)]) == 0
    assert "is revoked" in capsys.readouterr().out
    assert main(["keys", "revoke", table.id, "--file", str(path)]) == 0
    assert "was revoked at" in capsys.readouterr().out
    assert main(["keys", "list", "--file", str(path), "--json"]) == 0
    last = capsys.readouterr().out
    assert json.loads(last)["state"] == "revoked"
    for text in (shown, listed, last):
        assert table.sha256 not in text
        assert key not in text


@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">/dev/full", "No space left on device"), (">&-", "it is closed"), ("", "Broken pipe")],
)
def test_a_key_that_cannot_be_printed_is_not_made(path: Path, redirection: str, why: str) -> None:
    """Otherwise a valid key would be in the file that nobody knows."""
    words = [sys.executable, "-m", "skylb", "keys", "new", "--file", str(path), "--tenant", "acme"]
    path.write_text(LAYOUT)
    reader, writer = os.pipe()
    os.close(reader)  # as a reader that has left
    try:
        command = ["bash", "-c", f'"$@" {redirection}', "bash", *words]
        ended = subprocess.run(
            command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=50, check=False
        )
    finally:
        os.close(writer)
    assert ended.returncode == 1
    said = rf"skylb: the key k[0-9a-f]{{8}} cannot be printed on the standard output: {why}\. It was not made"
    assert re.match(said, ended.stderr)
    assert ended.stderr.count("\n") == 1
    assert path.read_text() == LAYOUT
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ([], "skylb keys: the next word is missing: expected skylb keys new, list or revoke"),
        (["nwe"], "'nwe': expected skylb keys new, list or revoke"),
        (["new"], "--tenant: missing: expected 1 to 128 characters of ASCII without spaces"),
        (["new", "--tenant", "a b"], "--tenant: 'a b': expected 1 to 128 characters of ASCII without spaces"),
        (["new", "--expires-in", "90"], "--expires-in: '90': expected a time from 1m to 100 years"),
        (["new", "--expires-in", "200y"], "--expires-in: '200y': expected a time from 1m to 100 years"),
        (["new", "--weight", "0"], "--weight: '0': expected an integer at least 1 and at most 1000"),
        (["list", "--file", "/none"], "--file: '/none': expected the path of a file (there is no such file)"),
        (["revoke"], "ID: missing: expected the id of a key, as skylb keys list shows it"),
    ],
)
def test_words_that_are_no_command_are_named(
    words: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", *words]) == 2
    assert fault in capsys.readouterr().err


def test_help_says_what_the_verbs_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "--help"]) == 0
    assert "skylb keys revoke ID --file FILE" in capsys.readouterr().out
