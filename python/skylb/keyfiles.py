"""Files that hold secrets: read whole, and never told."""

from pathlib import Path

from skylb.errors import ConfigError
from skylb.signing import FILE_BYTES_MAX, Keys, parse_keys


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


def read_keys(path: Path | None) -> Keys | None:
    """The secrets of the mesh.

    Raises:
        ConfigError: the file is not readable, or a line of it is no key; what it holds is not told.
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
