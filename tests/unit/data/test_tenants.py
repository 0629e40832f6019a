"""Whose request it is: keys and trusted fronts say, clients and peers' clients do not."""

import hashlib
from pathlib import Path

import pytest

from skylb._core import Head, HeadParser, RequestError, Tenant
from skylb.clock import monotonic_ns
from skylb.data.keyring import Keyring
from skylb.data.tenants import Tenants
from skylb.errors import ConfigError
from skylb.keyfiles import read_tenants
from skylb.keys.document import Document, KeyTable, TenantTable
from skylb.keys.ring import Ring
from skylb.mesh.signing import Claims

KEYS = {hashlib.sha256(b"sk-acme").hexdigest(): "acme"}
BOTH = Tenants("x-tenant", KEYS)


def head(*fields: str) -> Head:
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: t", "Content-Type: application/json", *fields]
    found = HeadParser().parse(("\r\n".join(lines) + "\r\nContent-Length: 2\r\n\r\n").encode("latin-1"))
    assert found is not None
    return found


KEYED: list[tuple[str, ...]] = [
    ("Authorization: Bearer sk-acme",),
    ("authorization: bearer  sk-acme",),
    ("Authorization: Bearer\tsk-acme",),
    ("X-Api-Key: sk-acme",),
    ("Api-Key: sk-acme",),
    ("Authorization: Basic dTpw", "X-Api-Key: sk-acme"),
    ("Authorization: Basic dTpw", "Api-Key: sk-acme"),
    ("X-Api-Key: sk-acme", "Api-Key: sk-other"),
]
KEYLESS: list[tuple[str, ...]] = [
    (),
    ("Authorization: Basic sk-acme",),
    ("Authorization: sk-acme",),
    ("Authorization: Bearersk-acme",),
    ("Authorization: Bearer", "X-Api-Key: sk-acme"),
    ("Authorization: Bearer sk-other", "X-Api-Key: sk-acme"),
    ("X-Api-Key: sk-other", "Api-Key: sk-acme"),
]


@pytest.mark.parametrize("fields", KEYED)
def test_a_key_names_its_tenant(fields: tuple[str, ...]) -> None:
    assert BOTH.of(head(*fields), False, None) == Tenant("acme")


@pytest.mark.parametrize("fields", [*KEYED, *KEYLESS])
def test_a_key_is_read_alike_whatever_file_has_it(fields: tuple[str, ...]) -> None:
    key = KeyTable(id="k", sha256=next(iter(KEYS)), tenant="acme")
    guarded = Tenants(keyring=Keyring(Ring(Document(tenants={"acme": TenantTable()}, keys=[key]))))
    try:
        party = guarded.let_in(head(*fields), False, monotonic_ns())
    except RequestError:
        party = None
    assert (party is not None) == (fields in KEYED)
    named = Tenants(None, KEYS).of(head(*fields), False, None)
    assert named.name == (party.tenant.name if party is not None else None)


@pytest.mark.parametrize(
    "field",
    [
        "Authorization: Bearer sk-other",
        "Authorization: Basic sk-acme",
        "Authorization: Bearer",
        "Authorization: Bearer sk-\xe9",
        "X-Api-Key: sk-other",
    ],
)
def test_a_key_that_is_not_listed_may_be_anybodys_and_no_key_is_nobodys(field: str) -> None:
    by_key = Tenants(None, KEYS)
    assert by_key.of(head(field), False, None) == Tenant.UNKNOWN
    assert by_key.of(head(), False, None) == Tenant.NOBODY
    assert Tenants("x-tenant").of(head(field), True, None) == Tenant.NOBODY, "keys tell no tenants here"


def test_the_header_is_believed_from_a_trusted_front_only_and_goes_before_the_key() -> None:
    said = head("X-Tenant: globex", "Authorization: Bearer sk-acme")
    assert BOTH.of(said, True, None) == Tenant("globex")
    assert BOTH.of(said, False, None) == Tenant("acme")
    assert Tenants(None, KEYS).of(said, True, None) == Tenant("acme")


@pytest.mark.parametrize("fields", [(), ("X-Tenant: acme",), ("X-Tenant: globex",)])
def test_where_fronts_name_tenants_whoever_is_none_may_be_anybodys(fields: tuple[str, ...]) -> None:
    assert Tenants("x-tenant").of(head(*fields), False, None) == Tenant.UNKNOWN
    assert BOTH.of(head(*fields), False, None) == Tenant.UNKNOWN


def test_a_trusted_front_that_names_no_tenant_says_that_it_is_nobodys() -> None:
    assert BOTH.of(head(), True, None) == Tenant.NOBODY


def test_a_forward_has_the_tenant_that_was_signed_whatever_its_head_says() -> None:
    said = head("X-Tenant: globex", "Authorization: Bearer sk-acme")
    for tenant in (Tenant("initech"), Tenant.NOBODY, Tenant.UNKNOWN):
        assert BOTH.of(said, True, Claims("us", 1, 1, 1, tenant)) == tenant


@pytest.mark.parametrize("value", ["", "two words", "x" * 129, "caf\xe9"])
def test_a_front_that_names_an_impossible_tenant_is_told(value: str) -> None:
    with pytest.raises(RequestError) as caught:
        BOTH.of(head(f"X-Tenant: {value}"), True, None)
    assert (caught.value.status, caught.value.code) == (400, "bad_tenant")


def test_a_tenant_file_has_digests_comments_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "tenants"
    digest, name = next(iter(KEYS.items()))
    path.write_text(f"# keys of May\n\n{name}:{digest}\n")
    assert read_tenants(path) == KEYS
    assert read_tenants(None) == {}


@pytest.mark.parametrize(
    "line", ["acme", "acme:sk-acme", f"a b:{'0' * 64}", f":{'0' * 64}", f"acme:{'G' * 64}"]
)
def test_a_tenant_file_that_is_none_names_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tenants"
    path.write_text(f"\n{line}\n")
    with pytest.raises(ConfigError, match="line 2: expected TENANT:SHA256"):
        read_tenants(path)
