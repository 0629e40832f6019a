"""The keys file at work: what it says is applied whole or not at all."""

import asyncio
import hashlib
import logging
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from skylb._core import Engine
from skylb.clock import monotonic_ns
from skylb.config import Settings
from skylb.errors import ConfigError
from skylb.guard import Guard, make, rules_for
from skylb.keys import ring
from skylb.keys.document import Document
from skylb.localrouter import LocalRouter
from skylb.settings.engine import EngineSettings
from skylb.settings.mesh import ResidencyRule

RULES = [ResidencyRule("acme", None, ("eu",))]


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def table(tenant: str, key: str, regions: list[str]) -> str:
    """A tenant with one key."""
    return (
        f"[tenants.{tenant}]\nregions = {regions!r}\n"
        f'[[keys]]\nid = "{tenant}"\nsha256 = "{digest(key).hex()}"\ntenant = "{tenant}"\n'
    )


def guarding(path: Path, work: Callable[[Guard], Awaitable[None]]) -> None:
    """Runs ``work`` with a guard over a real engine."""

    async def run() -> None:
        router = LocalRouter(Engine(EngineSettings().model_dump_json().encode(), b"k" * 16, 1))
        guard = Guard(path, rules_for(RULES, router), interval_s=3600)
        assert guard.keyring.party(digest("sk-acme"), monotonic_ns()) is None, (
            "before the start no key is valid"
        )
        try:
            await guard.start()
            await work(guard)
        finally:
            await guard.close()
            router.close()

    asyncio.run(run())


def test_without_a_keys_file_there_is_no_guard() -> None:
    router = LocalRouter(Engine(EngineSettings().model_dump_json().encode(), b"k" * 16, 1))
    assert make(Settings(replica=("http://a",)), router) is None


def test_keys_are_those_of_the_file_as_it_was_read_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(table("acme", "sk-acme", ["eu"]))

    async def work(guard: Guard) -> None:
        assert guard.keyring.party(digest("sk-acme"), monotonic_ns()) is not None
        path.write_text(table("globex", "sk-globex", ["us", "eu"]))
        await guard._file.renew()
        assert guard.keyring.party(digest("sk-acme"), monotonic_ns()) is None
        assert guard.keyring.party(digest("sk-globex"), monotonic_ns()) is not None
        assert guard.about() == "1 tenant, 1 valid key"
        assert guard.view()["refused"]["unknown"] == 2, "once before the start"

    with caplog.at_level(logging.INFO, logger="skylb"):
        guarding(path, work)
    assert caplog.messages == [f"{path}: 1 tenant, 1 valid key"] * 2


def test_terms_that_the_engine_does_not_take_leave_all_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(table("acme", "sk-acme", ["eu"]))

    async def work(guard: Guard) -> None:
        path.write_text(table("acme", "sk-other", [f"r{n}" for n in range(63)]))
        await guard._file.renew()
        assert guard.keyring.party(digest("sk-acme"), monotonic_ns()) is not None
        assert guard.keyring.party(digest("sk-other"), monotonic_ns()) is None
        fault = guard.view()["fault"]
        assert fault == f"{path}: tenants: residency rules name more than 63 regions"
        (good,) = [family for family in guard.families() if family.name == "skylb_keys_file_good"]
        assert good.samples[0].value == 0

    guarding(path, work)
    assert caplog.messages == [
        f"{path}: tenants: residency rules name more than 63 regions; the last good keys stay in use"
    ]


@pytest.mark.parametrize("text", ["", "\n", "# being written\n"])
def test_a_file_that_is_empty_for_a_moment_locks_nobody_out(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(table("acme", "sk-acme", ["eu"]))

    async def work(guard: Guard) -> None:
        path.write_text(text)
        await guard._file.look()
        assert guard.keyring.party(digest("sk-acme"), monotonic_ns()) is not None
        assert guard.view()["fault"] == f"{path}: expected at least one table [tenants.NAME]"

    guarding(path, work)


def test_a_file_that_is_broken_at_start_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text("[[keys]]\n")

    async def work(guard: Guard) -> None:
        raise AssertionError("it has started")

    with pytest.raises(ConfigError, match=r"keys\[1\]\.id: missing"):
        guarding(path, work)


def test_refused_keys_are_logged_at_the_end_at_the_latest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(f"{table('acme', 'sk-acme', ['eu'])}revoked = 2026-01-01T00:00:00Z\n")

    async def work(guard: Guard) -> None:
        for _ in range(3):
            assert guard.keyring.party(digest("sk-acme"), monotonic_ns()) is None

    guarding(path, work)
    assert caplog.messages == ["requests refused because their keys have expired or are revoked: acme (3)"]


def test_all_that_follows_from_the_file_is_made_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(table("acme", "sk-acme", ["eu"]))
    made: list[threading.Thread] = []

    def noting(make: Callable[[Document], Any]) -> Callable[[Document], Any]:
        def note(document: Document) -> Any:
            made.append(threading.current_thread())
            return make(document)

        return note

    async def work(guard: Guard) -> None:
        made.clear()  # a ring without keys was made before the start
        for name in ("_terms", "_residency"):
            monkeypatch.setattr(ring, name, noting(getattr(ring, name)))
        path.write_text(table("globex", "sk-globex", ["us"]))
        await guard._file.renew()
        assert guard.keyring.ring.residency == [("globex", None, ["us"])]
        assert len(made) == 2
        assert threading.main_thread() not in made

    guarding(path, work)
