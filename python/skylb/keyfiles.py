"""Files that hold secrets: read whole, and never shown."""

import logging
import re
import stat
from pathlib import Path

from skylb.errors import ConfigError
from skylb.mesh.signing import FILE_BYTES_MAX, TENANT_LEN_MAX, Keys, parse_keys

TENANTS_MAX = 100_000
"""API keys whose tenants are known."""

log = logging.getLogger("skylb.keyfiles")

_TENANT_LINE = re.compile(rf"([\x21-\x7e]{{1,{TENANT_LEN_MAX}}}):([0-9a-f]{{64}})", re.ASCII)


def exposed(path: Path | None) -> bool:
    """Whether users of the machine who are neither its owner nor of its group may read or change a file."""
    try:
        return path is not None and bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False  # who reads it is told what is wrong with it


def warn_exposed(files: dict[str, Path | None]) -> None:
    """One line in the log for each file of secrets, by its option, that everybody may read or change."""
    for option, path in files.items():
        if exposed(path):
            log.warning(
                "%s: %s: everybody on this machine may read or change it: chmod o= %s", option, path, path
            )


def read_secret(path: Path | None, option: str) -> str | None:
    """The one line of a key file.

    Raises:
        ConfigError: the file is not readable, or holds no line or more than one.
    """
    if path is None:
        return None
    try:
        lines = path.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{option}: {path}: cannot be read: {error}"]) from error
    if len(lines) != 1 or not lines[0].isprintable() or not lines[0].isascii():
        raise ConfigError([f"{option}: {path}: expected one word of printable ASCII"])
    return lines[0]


def read_tenants(path: Path | None) -> dict[str, str]:
    """Tenants by the SHA-256 of their API keys, in hexadecimal.

    Raises:
        ConfigError: the file is not readable, or a line of it is malformed.
    """
    if path is None:
        return {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"tenant_key_file: {path}: cannot be read: {error}"]) from error
    tenants: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _TENANT_LINE.fullmatch(line.strip())
        if match is None or len(tenants) >= TENANTS_MAX:
            fault = "expected TENANT:SHA256" if match is None else f"more than {TENANTS_MAX} keys"
            raise ConfigError([f"tenant_key_file: {path}: line {number}: {fault}"])
        tenants[match[2]] = match[1]
    return tenants


def read_keys(path: Path | None) -> Keys | None:
    """The secrets of the mesh.

    Raises:
        ConfigError: the file is not readable, or a line of it is no key; the message does not show it.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        keys = parse_keys(data.decode()) if len(data) <= FILE_BYTES_MAX else None
    except UnicodeDecodeError:
        raise ConfigError([f"peer_key_file: {path}: not UTF-8"]) from None
    except (OSError, ValueError) as error:
        raise ConfigError([f"peer_key_file: {path}: {error}"]) from error
    if keys is None:
        raise ConfigError([f"peer_key_file: {path}: over {FILE_BYTES_MAX} bytes"])
    return keys
