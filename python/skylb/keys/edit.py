"""Changes of the keys file that keep its comments and its layout: one more key, and a key revoked.

The text is changed in one place. The result is read again before it is written, and must differ from the old
content by that change alone. (`tomlkit`, which keeps the style of TOML documents, moves tables that stand in
mixed order, and takes 4 s for 10,000 keys.)

Two processes that change a file at once take turns: each locks the file's directory from reading to writing.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from skylb.errors import ConfigError, SkyLBError
from skylb.keys.document import FILE_BYTES_MAX, Document, key_lines, parse, tables
from skylb.watch import read_whole

KEY_PREFIX = "sk-"
_KEY_BYTES = 32
"""Random bytes of a key: 43 characters of base64url."""

_ID_BYTES = 4
NEW_MODE = 0o600

_ID_LINE = re.compile(r"\s*id\s*=")
_REVOKED_LINE = re.compile(r"\s*revoked\s*=")
_HEADER = re.compile(r"\s*\[")

Fields = Mapping[str, object]
Show = Callable[[str, str], None]


def add_key(
    path: Path, tenant: str, terms: Fields, fields: Fields, *, show: Show | None = None
) -> tuple[str, str]:
    """Makes a key and notes its hash in the file, which is made where there is none.

    Args:
        path: the file.
        tenant: whose key it is. One that has no table gets one.
        terms: fields of that table. A tenant that has a table keeps what it has.
        fields: of the key, besides its id, hash and tenant.
        show: hands the key and its id to whoever asked for them. If it fails, the file stays as it was:
            a valid key that nobody knows is good for nothing.

    Returns:
        The key, which is nowhere else from now on, and its id.

    Raises:
        ConfigError: the file, or a value, is no good.
        SkyLBError: the file cannot be read or written.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    found = ""

    def change(text: str, document: Document) -> tuple[str, Document]:
        nonlocal found
        if tenant in document.tenants and terms:
            names = ", ".join(terms)
            raise ConfigError([f"{path}: tenants.{tenant} exists: change its terms in the file: {names}"])
        found = _free_id(document)
        lines = [] if tenant in document.tenants else [f"[tenants.{_name(tenant)}]", *_lines(terms), ""]
        digest = hashlib.sha256(key.encode()).hexdigest()
        lines += ["[[keys]]", *_lines({"id": found, "sha256": digest, "tenant": tenant, **fields})]
        block = "\n".join(lines) + "\n"
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        expected = document.model_dump(by_alias=True)
        expected["tenants"].setdefault(tenant, dict(terms))
        expected["keys"].append({"id": found, "sha256": digest, "tenant": tenant, **fields})
        return text + gap + block, Document.model_validate(expected)

    _edit(path, change, may_be_new=True, ready=lambda: show(key, found) if show is not None else None)
    return key, found


def revoke_key(path: Path, key_id: str, now: datetime) -> datetime | None:
    """Notes in the file that a key is revoked from now on.

    Returns:
        When it was revoked before, if it was: nothing is changed then.

    Raises:
        ConfigError: the file is no good, or has no such key.
        SkyLBError: the file cannot be read or written.
    """
    before: datetime | None = None

    def change(text: str, document: Document) -> tuple[str, Document]:
        nonlocal before
        numbers = [number for number, key in enumerate(document.keys) if key.id == key_id]
        if not numbers:
            raise ConfigError([f"{path}: no key has this id: skylb keys list shows all"])
        number = numbers[0]
        revoked = document.keys[number].revoked
        if revoked is not None and revoked <= now:
            before = revoked
            return text, document
        expected = document.model_dump(by_alias=True)
        expected["keys"][number]["revoked"] = now
        return _with_revoked(path, text, number, now), Document.model_validate(expected)

    _edit(path, change)
    return before


def _with_revoked(path: Path, text: str, number: int, now: datetime) -> str:
    """The text with a line more, or another one, in the table of a key."""
    lines = text.splitlines(keepends=True)
    headers = key_lines(text)
    if number >= len(headers):
        raise _in_other_form(path)
    start = headers[number]
    end = next((at for at in range(start, len(lines)) if _HEADER.match(lines[at])), len(lines))
    table = range(start, end)
    old = next((at for at in table if _REVOKED_LINE.match(lines[at])), None)
    line = f"revoked = {_value(now)}\n"
    if old is not None:
        lines[old] = line
    else:
        behind = next((at + 1 for at in table if _ID_LINE.match(lines[at])), start)
        if not lines[behind - 1].endswith("\n"):
            lines[behind - 1] += "\n"
        lines.insert(behind, line)
    return "".join(lines)


# ------------------------------------------------------------------------------- the file


def _edit(
    path: Path,
    change: Callable[[str, Document], tuple[str, Document]],
    *,
    may_be_new: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Changes a file's text, looks whether it says what it should, and puts it in place.

    ``ready`` is called when all that is left is to put it there. If it raises an error, nothing is changed.
    """
    try:
        with _locked(path):
            content = b"" if may_be_new and not path.exists() else read_whole(path, FILE_BYTES_MAX)[1]
            document = parse(path, content)
            new, expected = change(content.decode(), document)
            encoded = new.encode()
            if encoded == content:
                return
            if len(encoded) > FILE_BYTES_MAX:
                raise ConfigError([f"{path}: expected at most {FILE_BYTES_MAX} bytes"])
            if _document(path, encoded) != expected:
                raise _in_other_form(path)
            _replace(path, encoded, ready)
    except OSError as error:
        raise SkyLBError(f"{path}: {error.strerror}") from error


def _document(path: Path, content: bytes) -> Document:
    try:
        tables(path, content)
    except ConfigError:
        raise _in_other_form(path) from None
    return parse(path, content)


def _in_other_form(path: Path) -> ConfigError:
    expected = "expected keys as [[keys]] and tenants as [tenants.NAME]"
    return ConfigError([f"{path}: only an editor can change this file: {expected}"])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file's directory: the file itself is replaced, and its lock with it."""
    fd = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _replace(path: Path, content: bytes, ready: Callable[[], None]) -> None:
    """Writes a file so that others see the old content or the new one, and keeps its mode and owner."""
    target = path.resolve()  # a link stays one
    before = target.stat() if target.exists() else None
    fd, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            if before is not None:
                with suppress(PermissionError):  # who may not give it away keeps it
                    os.fchown(fd, before.st_uid, before.st_gid)
            os.fchmod(fd, stat.S_IMODE(before.st_mode) if before is not None else NEW_MODE)
            file.write(content)
            file.flush()
            os.fsync(fd)
        ready()
        Path(name).replace(target)
    except BaseException:  # cancelled or killed by Ctrl-C too: nothing is left beside the file
        Path(name).unlink(missing_ok=True)
        raise


# ---------------------------------------------------------------------------------- text


def _free_id(document: Document) -> str:
    taken = {key.id for key in document.keys}
    while (made := "k" + secrets.token_hex(_ID_BYTES)) in taken:
        continue
    return made


def _lines(fields: Fields) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in fields.items() if value is not None]


def _value(value: object) -> str:
    """A value in TOML."""
    if isinstance(value, datetime):
        return moment_text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    # Basic strings of TOML take every escape of JSON's (TOML 1.0, String).
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def moment_text(moment: datetime) -> str:
    """A moment as the file has it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _name(name: str) -> str:
    """A key of a table: bare where it may be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
