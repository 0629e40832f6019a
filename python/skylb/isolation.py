"""The key that gives each tenant a prefix cache of its own; docs/ISOLATION.md has what it is for."""

import logging
import secrets
from pathlib import Path

from skylb.errors import ConfigError
from skylb.keyfiles import read_secret
from skylb.mesh.signing import Key, Keys

log = logging.getLogger("skylb.isolation")

KEY_BYTES = 32

WORD_LEN_MIN = 16
"""Characters of the word in the key file, at least."""

_SALTS = b"cache salts v1\n"
"""Label that sets this key apart from all else that is derived from a secret (RFC 5869, 3.2)."""

DRAWN = (
    "isolate_tenants: the key is drawn at each start. A restart, and another balancer, find no prefix again "
    "that replicas have cached: give isolation_key_file"
)


def read_isolation_key(path: Path | None) -> bytes | None:
    """The key that a file gives, 32 bytes.

    Raises:
        ConfigError: the file cannot be read, or its word is too short.
    """
    word = read_secret(path, "isolation_key_file")
    if word is None:
        return None
    if len(word) < WORD_LEN_MIN:
        raise ConfigError([f"isolation_key_file: {path}: expected {WORD_LEN_MIN} characters or more"])
    return Key("isolation", word.encode()).mac(_SALTS)


class IsolationKey:
    """The key of this process, which it keeps: with another, no prefix that is cached is found again.

    Args:
        path: of the key file, if there is one.
        keys: the secrets of the mesh, which the key comes from where there is no file.
        kept: the key of the process before this one, where nothing gives a key.

    Raises:
        ConfigError: the file cannot be read or understood.
    """

    def __init__(self, path: Path | None, keys: Keys | None, kept: bytes | None = None) -> None:
        self._path = path
        self._told = self._file = read_isolation_key(path)
        derived = None if keys is None else keys.first.mac(_SALTS)
        self.drawn = self._file is None and derived is None
        """Nothing gives a key."""
        self.key = self._file or derived or kept or secrets.token_bytes(KEY_BYTES)

    def look(self) -> None:
        """Reads the file again: a line in the log says that another key takes a restart.

        Raises:
            ConfigError: the file cannot be read or understood.
        """
        found = read_isolation_key(self._path)
        if found not in {self._told, self._file}:
            log.warning("isolation_key_file: %s has another key: it counts after a restart", self._path)
        self._told = found
