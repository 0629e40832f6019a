"""The keys file: every fault names its place and what was expected there, and never a value."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skylb.errors import ConfigError
from skylb.keys.document import (
    FAULTS_MAX,
    FILE_BYTES_MAX,
    KeyTable,
    TenantTable,
    parse,
    read,
)

PATH = Path("keys.toml")
KEY = "sk-Zm9vYmFyYmF6cXV4cXV1eGNvcmdlZ3JhdWx0Z2FycGx5"
HASH = hashlib.sha256(KEY.encode()).hexdigest()
GOOD = f"""
[tenants.acme]
models = ["llama-3"]
regions = ["eu", "us"]
class = "normal"
weight = 2
requests_per_minute = 600
tokens_per_minute = 200000
concurrent = 50

[tenants.globex]

[[keys]]
id = "k1"
sha256 = "{HASH.upper()}"
tenant = "acme"
expires = 2027-01-01T00:00:00Z
revoked = 2026-11-30T05:00:00+01:00
note = "ci of the web team"
"""


def faults(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(PATH, text if isinstance(text, bytes) else text.encode())
    assert caught.value.__cause__ is None, "a cause would show the file's values in a traceback"
    return [fault.removeprefix(f"{PATH}: ") for fault in caught.value.faults]


def key_table(**fields: Any) -> str:
    """A table of a key, with other fields than a good one's."""
    table = {"id": "k1", "sha256": HASH, "tenant": "acme", **fields}
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items() if value is not None]
    return "\n".join(["[tenants.acme]", "[[keys]]", *lines])


def test_a_good_file_says_what_it_has() -> None:
    document = parse(PATH, GOOD.encode())
    acme = document.tenants["acme"]
    assert (acme.models, acme.regions, acme.class_, acme.weight) == (["llama-3"], ["eu", "us"], "normal", 2)
    assert (acme.requests_per_minute, acme.tokens_per_minute, acme.concurrent) == (600, 200_000, 50)
    assert document.tenants["globex"] == TenantTable()
    (key,) = document.keys
    assert key.expires is not None
    assert key.revoked is not None
    assert key.revoked < key.expires
    assert HASH.upper() not in repr(document), "a dump shows no hash"


def test_an_empty_file_has_neither_tenants_nor_keys() -> None:
    document = parse(PATH, b"")
    assert (document.tenants, document.keys) == ({}, [])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("weight = 0", "weight: expected an integer at least 1 and at most 1000"),
        ('weight = "2"', "weight: expected an integer at least 1 and at most 1000"),
        ("weight = 2.0", "weight: expected an integer at least 1 and at most 1000"),
        ("concurrent = true", "concurrent: expected an integer at least 1 and at most 1000000"),
        ('class = "urgent"', "class: expected one of high, normal, low"),
        ("models = []", "models: expected a list of 1 to 1024 names of models, each of 1 to 256 characters"),
        ("models = [1]", "models: expected a list of 1 to 1024 names of models, each of 1 to 256 characters"),
        ('regions = ["a b"]', "regions: expected a list of 1 to 63 names of regions"),
        ("requests_per_minut = 1", ": unknown field requests_per_minut; did you mean requests_per_minute?"),
    ],
)
def test_a_fault_of_a_tenant_names_table_field_and_expectation(line: str, fault: str) -> None:
    where = "tenants.acme" + "." * (not fault.startswith(":"))
    assert faults(f"[tenants.acme]\n{line}\n") == [where + fault]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"id": KEY}, ".id: expected 1 to 32 letters, digits, dashes and underscores"),
        ({"id": None}, ".id: missing: expected 1 to 32 letters, digits, dashes and underscores"),
        ({"sha256": KEY}, ".sha256: expected 64 hexadecimal digits, the SHA-256 of the key"),
        ({"tenant": "acne"}, ".tenant: expected the name of a table [tenants.NAME]; did you mean acme?"),
        (
            {"expires": "tomorrow"},
            ".expires: expected a date and time with its offset, as 2027-01-01T00:00:00Z",
        ),
        ({"note": "two\nlines"}, ".note: expected text of one line, at most 256 characters"),
        ({"sha265": HASH}, ": unknown field; did you mean sha256?"),
        (
            {"sha256": hashlib.sha256(b"").hexdigest()},
            ".sha256: expected the SHA-256 of a key, got that of no text",
        ),
    ],
)
def test_a_fault_of_a_key_names_its_line_and_number(fields: dict[str, Any], fault: str) -> None:
    assert faults(key_table(**fields)) == [f"line 2: keys[1]{fault}"]


@pytest.mark.parametrize("value", ["2027-01-01", "2027-01-01T00:00:00"])
def test_a_moment_without_an_offset_is_remarked(value: str) -> None:
    (fault,) = faults(f"{key_table()}\nexpires = {value}\n")
    assert fault.endswith("as 2027-01-01T00:00:00Z, got one without an offset")


def test_two_keys_of_one_id_or_one_hash_are_faults() -> None:
    second = key_table().removeprefix("[tenants.acme]\n")
    assert faults(f"{key_table()}\n{second}") == [
        "line 6: keys[2].id: expected one that keys[1] has not",
        "line 6: keys[2].sha256: expected one that keys[1] has not",
    ]


def test_all_faults_are_named_at_once_up_to_a_bound() -> None:
    text = "".join(f"[tenants.t{n}]\nweight = 0\n" for n in range(FAULTS_MAX + 5))
    found = faults(text)
    assert len(found) == FAULTS_MAX + 1
    assert found[-1] == "further faults are not listed"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\n[[keys]\n", "line 2, column 7: expected TOML: expected ']]' at the end of an array declaration"),
        (b"a = '\xff'", "line 1: expected UTF-8"),
        (b"x = " + b"[" * 50_000, "expected TOML without deep nesting"),
        (b"[tenant.acme]\n", "unknown table tenant; did you mean tenants?"),
        (b"keys = 3\n", "keys: expected at most 100000 tables [[keys]]"),
        (b"tenants = []\n", "tenants: expected at most 10000 tables [tenants.NAME]"),
        (b"[tenants]\nacme = 3\n", "tenants.acme: expected a table"),
        (b'[tenants."a b"]\n', "tenants: the name of one of them: expected 1 to 128 characters of ASCII"),
    ],
)
def test_what_is_no_keys_file_is_one_fault(content: bytes, fault: str) -> None:
    (found,) = faults(content)
    assert found.startswith(fault)


def test_regions_of_all_tenants_together_are_bounded() -> None:
    text = "".join(f'[tenants.t{n}]\nregions = ["r{n}"]\n' for n in range(64))
    assert faults(text) == ["tenants: 64 regions: expected at most 63 in all"]


def test_a_file_that_is_not_there_or_too_large_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "none")
    (tmp_path / "large").write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match=f"expected at most {FILE_BYTES_MAX} bytes"):
        read(tmp_path / "large")


# ----------------------------------------------------------------------------- no secrets

SECRETS = st.sampled_from([KEY, HASH, f"Bearer {KEY}", f"{KEY}\n", HASH.upper()])
FIELDS = [
    field.alias or name for model in (TenantTable, KeyTable) for name, field in model.model_fields.items()
]
VALUES = SECRETS | st.sampled_from(["acme", "k1", "x", "", 1, -1, True, 1.5])
TABLES = st.dictionaries(st.sampled_from(FIELDS) | SECRETS, VALUES | st.lists(VALUES, max_size=2), max_size=6)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "tenants": st.dictionaries(st.sampled_from(["acme", "a b"]) | SECRETS, TABLES, max_size=3) | VALUES,
        "keys": st.lists(TABLES, max_size=3) | TABLES | VALUES,
        KEY: VALUES,
    },
)


def toml(value: Any) -> str:
    """A value in TOML, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def no_secret_in(content: bytes) -> None:
    try:
        parse(PATH, content)
    except ConfigError as error:
        said = str(error).lower()
        for secret in (KEY, HASH):
            parts = {secret[at : at + 8].lower() for at in range(len(secret) - 8)}
            assert not [part for part in parts if part in said]


@settings(deadline=None)
@given(DOCUMENTS)
def test_no_fault_shows_a_key_or_a_hash_wherever_it_was_pasted(document: dict[str, Any]) -> None:
    no_secret_in(
        "\n".join(f"{json.dumps(name)} = {toml(value)}" for name, value in document.items()).encode()
    )


def test_a_key_that_was_pasted_into_a_tenants_name_is_not_shown() -> None:
    no_secret_in(GOOD.replace("[tenants.a", f"[tenants.a{KEY}", 1).replace("models", "odels", 1).encode())


@settings(deadline=None)
@given(st.data())
def test_no_fault_of_a_damaged_file_shows_a_key_or_a_hash(data: st.DataObject) -> None:
    content = bytearray(GOOD.replace("ci of the web team", KEY).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["cut", "insert", "double"]))
        if kind == "cut":
            del content[at : at + data.draw(st.integers(1, 30))]
        elif kind == "insert":
            content[at:at] = data.draw(
                st.sampled_from([b'"', b"[", b"]", b"\n", b"=", b"\xff", b"'", b"{", KEY.encode()])
            )
        else:
            content[at:at] = content[at : at + data.draw(st.integers(1, 200))]
        if not content:
            return
    no_secret_in(bytes(content))
