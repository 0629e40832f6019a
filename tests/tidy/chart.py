"""The chart's schema of `settings`: every setting of ``skylb serve`` that the chart does not set itself."""

import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from skylb.config import Settings
from skylb.options import Option, options, plain

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "deploy" / "helm" / "skylb" / "values.schema.json"

OWN = frozenset(
    {
        "admin",
        "admin_token_file",
        "advertise",
        "drain_delay_s",
        "drain_timeout_s",
        "isolation_key_file",
        "keys_file",
        "listen",
        "name",
        "peer",
        "peer_key_file",
        "peer_kubernetes_service",
        "peer_listen",
        "peer_tls_ca",
        "peer_tls_cert",
        "peer_tls_key",
        "probe_key_file",
        "region",
        "replica_ca",
        "replica_key_file",
        "sync_listen",
        "tls_cert",
        "tls_client_ca",
        "tls_key",
    }
)
"""Settings that the chart makes from other values."""

OWN_GROUPS = frozenset({"kubernetes"})

_TYPES: dict[type, list[str]] = {bool: ["boolean"], int: ["integer"], float: ["number"]}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def of_option(option: Option) -> dict[str, Any]:
    """The schema of one setting."""
    kind = plain(option.field.annotation)
    if get_origin(kind) is Literal:
        item: dict[str, Any] = {"enum": [*get_args(kind)]}
    elif kind in _TYPES:
        # Sizes may have a unit: text. Its bounds are left to the program.
        sized = option.expected.startswith("bytes")
        item = {"type": [*_TYPES[kind], *(["string"] if sized else [])]}
        for mark in () if kind is bool else option.field.metadata:
            for name, word in _BOUNDS.items():
                bound = getattr(mark, name, None)
                if isinstance(bound, (int, float)) and abs(bound) < 1 << 53:
                    item[word] = bound
    else:
        item = {"type": "string"}
    return {"type": "array", "items": item} if option.many else item


def settings() -> dict[str, Any]:
    """The schema of all of them."""
    made: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}}
    for option in options(Settings):
        group, _, name = option.name.rpartition(".")
        if option.name in OWN or group in OWN_GROUPS or option.name.startswith("kubernetes_"):
            continue
        place = made
        if group:
            empty = {"type": "object", "additionalProperties": False, "properties": {}}
            place = made["properties"].setdefault(group, empty)
        place["properties"][name] = of_option(option)
    return made


def renewed(text: str) -> str:
    """The chart's schema of values, with that of the settings as the program has them now."""
    schema = json.loads(text)
    schema["definitions"]["settings"] = settings()
    return json.dumps(schema, indent=2) + "\n"
