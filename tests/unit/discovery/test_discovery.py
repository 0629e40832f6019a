"""Where replicas come from: files and names, and what happens when they are broken."""

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from skylb.addresses import ReplicaUrl, parse_replica
from skylb.config import DnsFamily
from skylb.discovery.dns import DnsSource
from skylb.discovery.file import FAULTS_MAX, FILE_BYTES_MAX, PEERS, REPLICAS, ListFile, Listing, parse
from skylb.discovery.named import NamedSource
from skylb.discovery.resolve import ADDRESSES_MAX, reachable, resolve
from skylb.discovery.source import Lack, Offered, Trouble
from skylb.errors import ConfigError
from skylb.types import Address

A = "http://10.0.0.1:8000"
B = "https://[2001:db8::1]:8443"
C = "unix:/run/vllm.sock"


def urls(*texts: str) -> list[ReplicaUrl]:
    return [parse_replica(text) for text in texts]


def unresolved(why: str) -> Trouble:
    return Trouble(Lack.UNRESOLVED, why)


def faults(path: str, content: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(Path(path), content.encode() if isinstance(content, str) else content, REPLICAS)
    return caught.value.faults


class TestFileForms:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("fleet.txt", f"# two\n{A}\n\n  {B}  # far\n{C}"),
            ("fleet", f"{A}\r\n{B}\r\n{C}\r\n"),
            ("fleet.json", f'["{A}", "{B}", "{C}"]'),
            ("fleet.json", f'{{"replicas": ["{A}", "{B}", "{C}"]}}'),
            ("fleet.toml", f'replicas = ["{A}",\n "{B}",\n "{C}"]'),
        ],
    )
    def test_each_form_holds_the_same_replicas(self, name: str, content: str) -> None:
        assert parse(Path(name), content.encode(), REPLICAS) == urls(A, B, C)

    def test_a_fleet_can_be_empty_only_where_it_is_said_so(self) -> None:
        assert parse(Path("f.json"), b"[]", REPLICAS) == []
        assert parse(Path("f.toml"), b"replicas = []", REPLICAS) == []
        assert faults("f.txt", "# nothing\n") == ["f.txt:1: expected at least one URL"]
        assert faults("f.toml", "") == ["f.toml:1: expected a list of URLs under replicas"]

    def test_every_bad_url_is_named_with_its_line(self) -> None:
        found = faults("f.txt", f"{A}\nhttp://a b:1\n\nftp://c:1\n")
        assert [fault.split(": ")[0] for fault in found] == ["f.txt:2", "f.txt:4"]
        assert all("expected http://HOST:PORT" in fault for fault in found)

    def test_bad_urls_in_json_and_toml_are_named_with_their_line(self) -> None:
        assert faults("f.json", f'[\n"{A}",\n"c:1"\n]')[0].startswith("f.json:3: expected http://")
        assert faults("f.toml", f'replicas = [\n"{A}",\n7\n]')[0].startswith("f.toml:3: expected http://")

    @pytest.mark.parametrize(
        ("name", "content", "start"),
        [
            ("f.json", '[\n"http://a:1"\n"http://b:1"]', "f.json:3: expected JSON: "),
            ("f.json", "[" * 100_000, "f.json: expected JSON"),
            ("f.json", "9" * 10_000, "f.json:1: expected JSON"),
            ("f.json", "7", "f.json:1: expected a list"),
            ("f.json", '{\n"replica": []}', "f.json:2: expected only replicas"),
            ("f.toml", "replicas = [\n", "f.toml:2: expected TOML: "),
            ("f.toml", 'x = 1\nreplicas = ["a"', "f.toml:2: expected TOML: "),
            ("f.txt", b"http://a:1\n\xff\n", "f.txt:2: expected UTF-8"),
            ("f.txt", b"#" * (FILE_BYTES_MAX + 1), "f.txt: expected at most"),
        ],
    )
    def test_what_cannot_be_read_is_told_with_file_line_and_expectation(
        self, name: str, content: str | bytes, start: str
    ) -> None:
        assert faults(name, content)[0].startswith(start)

    def test_faults_and_replicas_are_bounded(self) -> None:
        assert len(faults("f.txt", "x\n" * 1000)) == FAULTS_MAX

    @pytest.mark.parametrize("listing", [REPLICAS, PEERS], ids=["replicas", "peers"])
    def test_of_a_list_beyond_its_bound_the_first_are_kept(
        self, listing: Listing[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        entries = [f"http://h:{port}" for port in range(1, 5000)]
        if listing is PEERS:
            entries = [f"p{number}={url}" for number, url in enumerate(entries)]
        found = parse(Path("f.txt"), "\n".join(entries).encode(), listing)
        assert found == [listing.parse(entry) for entry in entries[: listing.len_max]]
        assert f"those after the first {listing.len_max} are left out" in caplog.text


class Seen(list[list[str]]):
    """What a source handed on, in order."""

    def urls(self, given: Sequence[ReplicaUrl]) -> None:
        self.append([str(url) for url in given])

    def replicas(self, given: Sequence[Offered]) -> None:
        self.append([f"{replica.name}>{replica.address.host}" for replica in given])


def write(path: Path, content: str) -> None:
    """Writes a file so that its time stamp differs from the last one's."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(content)
    os.utime(path, ns=(before + 1_000_000_000, before + 1_000_000_000))


class TestListFile:
    def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(self, tmp_path: Path) -> None:
        path, seen = tmp_path / "fleet", Seen()
        source = ListFile(path, seen.urls, interval_s=1, listing=REPLICAS)

        async def steps() -> None:
            write(path, A)
            await source.load()
            await source.look()
            write(path, f"{A}\n{B}")
            await source.look()
            await source.look()

        asyncio.run(steps())
        assert seen == [[A], [A, B]]

    def test_a_file_put_in_place_by_renaming_is_seen(self, tmp_path: Path) -> None:
        path, seen = tmp_path / "fleet", Seen()
        source = ListFile(path, seen.urls, interval_s=1, listing=REPLICAS)

        async def steps() -> None:
            write(path, A)
            await source.load()
            new = tmp_path / "new"
            new.write_text(A.replace("1", "2"))
            os.utime(new, ns=(path.stat().st_mtime_ns,) * 2)
            new.rename(path)
            await source.look()

        asyncio.run(steps())
        assert len(seen) == 2

    def test_a_broken_file_keeps_the_last_good_fleet_and_is_told_once(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path, seen = tmp_path / "fleet", Seen()
        source = ListFile(path, seen.urls, interval_s=1, listing=REPLICAS)

        async def steps() -> None:
            write(path, A)
            await source.load()
            write(path, f"{A}\nnonsense\nmore nonsense")
            await source.look()
            await source.look()
            path.unlink()
            await source.look()
            write(path, B)
            await source.look()

        with caplog.at_level(logging.INFO, logger="skylb"):
            asyncio.run(steps())
        assert seen == [[A], [B]]
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == 3
        assert told[0].startswith(f"{path}:2: expected http://HOST:PORT")
        assert told[0].endswith("(and 1 more faults); the last good list stays")
        assert told[1] == f"{path}: No such file or directory; the last good list stays"
        assert told[2] == f"{path} is good again"

    def test_a_file_that_is_broken_at_start_is_an_error_with_all_faults(self, tmp_path: Path) -> None:
        write(tmp_path / "fleet", "x\ny\n")
        source = ListFile(tmp_path / "fleet", Seen().urls, interval_s=1, listing=REPLICAS)
        with pytest.raises(ConfigError) as caught:
            asyncio.run(source.load())
        assert len(caught.value.faults) == 2


class Names:
    """A resolver whose answers a test sets; what is absent does not resolve."""

    def __init__(self, **hosts: list[str]) -> None:
        self.hosts = hosts

    async def __call__(self, url: ReplicaUrl) -> list[Address]:
        if url.host not in self.hosts:
            raise OSError(-2, "Name or service not known")
        return [Address(host, url.port) for host in self.hosts[url.host]]


async def passes(source: NamedSource, count: int) -> None:
    """Runs a source's loop until its names have been looked up that often."""
    task = asyncio.ensure_future(source.run())
    for _ in range(count):
        source.passed.clear()
        await source.passed.wait()
    task.cancel()
    await asyncio.wait([task])


class TestNamedSource:
    def test_addresses_and_sockets_need_no_resolving(self) -> None:
        seen = Seen()
        source = NamedSource(seen.replicas, lambda _: False, interval_s=60)
        source.set_urls(urls(A, B, C, A))
        assert seen == [[f"{A}>10.0.0.1", f"{B}>2001:db8::1", f"{C}>/run/vllm.sock"]]

    def test_a_name_that_does_not_resolve_is_told_once_and_shown(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen, names = Seen(), Names()
        source = NamedSource(seen.replicas, lambda _: False, interval_s=0.001, resolver=names)

        async def steps() -> None:
            source.set_urls(urls("http://a:1", A))
            await passes(source, 3)
            assert source.troubles() == {"http://a:1": unresolved("Name or service not known")}
            names.hosts["a"] = ["10.0.0.9"]
            await passes(source, 1)

        with caplog.at_level(logging.INFO, logger="skylb"):
            asyncio.run(steps())
        assert seen[0] == [f"{A}>10.0.0.1"]
        assert seen[-1] == ["http://a:1>10.0.0.9", f"{A}>10.0.0.1"]
        assert source.troubles() == {}
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]

    def test_a_name_that_stops_resolving_keeps_its_address(self) -> None:
        seen, names = Seen(), Names(a=["10.0.0.9"])
        source = NamedSource(seen.replicas, lambda _: False, interval_s=0.001, resolver=names)

        async def steps() -> None:
            source.set_urls(urls("http://a:1"))
            await passes(source, 1)
            names.hosts.clear()
            await passes(source, 1)

        asyncio.run(steps())
        assert seen[-1] == ["http://a:1>10.0.0.9"]

    def test_of_several_addresses_the_one_that_accepts_connections_is_taken(self) -> None:
        seen = Seen()
        source = NamedSource(
            seen.replicas, lambda _: False, interval_s=60, resolver=Names(a=["127.0.0.2", "127.0.0.1"])
        )

        async def steps() -> None:
            server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            source.set_urls(urls(f"http://a:{port}"))
            await passes(source, 1)
            server.close()
            await server.wait_closed()

        asyncio.run(steps())
        assert seen[-1][0].endswith(">127.0.0.1")

    def test_an_address_stays_while_its_replica_answers(self) -> None:
        seen, names, up = Seen(), Names(a=["10.0.0.1"]), True
        source = NamedSource(seen.replicas, lambda _: up, interval_s=0.001, resolver=names)

        async def steps() -> None:
            source.set_urls(urls("http://a:1"))
            await passes(source, 1)
            names.hosts["a"] = ["10.0.0.2", "10.0.0.1"]
            await passes(source, 1)
            assert seen[-1] == ["http://a:1>10.0.0.1"]
            names.hosts["a"] = ["10.0.0.3"]
            await passes(source, 1)

        asyncio.run(steps())
        assert seen[-1] == ["http://a:1>10.0.0.3"]

    def test_new_urls_are_resolved_at_once(self) -> None:
        seen = Seen()
        source = NamedSource(seen.replicas, lambda _: False, interval_s=3600, resolver=Names(a=["10.0.0.9"]))

        async def steps() -> None:
            task = asyncio.ensure_future(source.run())
            await source.passed.wait()
            source.passed.clear()
            source.set_urls(urls("http://a:1"))
            await source.passed.wait()
            task.cancel()
            await asyncio.wait([task])

        asyncio.run(steps())
        assert seen[-1] == ["http://a:1>10.0.0.9"]


class TestDnsSource:
    def test_every_address_is_a_replica_in_an_order_that_does_not_rotate(self) -> None:
        seen, names = Seen(), Names(fleet=["10.0.0.2", "2001:db8::1", "10.0.0.1"])
        source = DnsSource(
            urls("http://fleet:8000")[0], seen.replicas, interval_s=1, family="all", resolver=names
        )

        async def steps() -> None:
            await source.resolve_once()
            names.hosts["fleet"].reverse()
            await source.resolve_once()

        asyncio.run(steps())
        assert seen[0] == [
            "http://10.0.0.1:8000>10.0.0.1",
            "http://10.0.0.2:8000>10.0.0.2",
            "http://[2001:db8::1]:8000>2001:db8::1",
        ]
        assert seen[1] == seen[0]

    @pytest.mark.parametrize(
        ("family", "found", "taken"),
        [
            ("ipv4", ["2001:db8::1", "10.0.0.1", "2001:db8::2", "10.0.0.2"], ["10.0.0.1", "10.0.0.2"]),
            ("ipv6", ["10.0.0.1", "2001:db8::1", "10.0.0.2", "2001:db8::2"], ["2001:db8::1", "2001:db8::2"]),
            ("ipv4", ["2001:db8::1"], ["2001:db8::1"]),
            ("ipv6", ["10.0.0.1"], ["10.0.0.1"]),
        ],
    )
    def test_a_replica_with_an_address_of_each_family_is_one_replica(
        self, family: DnsFamily, found: list[str], taken: list[str]
    ) -> None:
        seen, names = Seen(), Names(fleet=found)
        source = DnsSource(
            urls("http://fleet:8000")[0], seen.replicas, interval_s=1, family=family, resolver=names
        )
        asyncio.run(source.resolve_once())
        assert [target.partition(">")[2] for target in seen[0]] == taken

    def test_a_family_that_is_missing_for_a_moment_does_not_replace_the_fleet(self) -> None:
        both, v6 = ["10.0.0.1", "2001:db8::1"], ["2001:db8::1"]
        seen, names = Seen(), Names()
        source = DnsSource(urls("http://fleet:8000")[0], seen.replicas, interval_s=1, resolver=names)

        async def steps() -> None:
            for found in (both, v6, v6, both, v6, v6):
                names.hosts["fleet"] = found
                await source.resolve_once()
            assert {offer[0] for offer in seen} == {"http://10.0.0.1:8000>10.0.0.1"}
            await source.resolve_once()
            assert seen[-1] == ["http://[2001:db8::1]:8000>2001:db8::1"]
            names.hosts["fleet"] = both
            await source.resolve_once()
            assert seen[-1] == ["http://10.0.0.1:8000>10.0.0.1"]

        asyncio.run(steps())

    def test_of_a_name_with_too_many_addresses_the_same_are_kept_in_whatever_order_they_come(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen, names = Seen(), Names(fleet=[f"10.0.{n // 250}.{n % 250}" for n in range(ADDRESSES_MAX + 9)])
        source = DnsSource(urls("http://fleet:8000")[0], seen.replicas, interval_s=1, resolver=names)

        async def steps() -> None:
            await source.resolve_once()
            names.hosts["fleet"].reverse()
            await source.resolve_once()

        asyncio.run(steps())
        assert len(seen[0]) == ADDRESSES_MAX
        assert seen[1] == seen[0]
        assert caplog.text.count("9 addresses after the first") == 1

    def test_a_resolver_that_fails_takes_no_replica_away(self, caplog: pytest.LogCaptureFixture) -> None:
        seen, names = Seen(), Names(fleet=["10.0.0.1"])
        source = DnsSource(urls("http://fleet:8000")[0], seen.replicas, interval_s=1, resolver=names)

        async def steps() -> None:
            await source.resolve_once()
            names.hosts.clear()
            await source.resolve_once()
            await source.resolve_once()

        asyncio.run(steps())
        assert len(seen) == 1
        assert source.troubles() == {"http://fleet:8000": unresolved("Name or service not known")}
        assert len(caplog.records) == 1

    def test_the_host_that_replicas_hear_is_the_name(self) -> None:
        offered: list[Offered] = []
        source = DnsSource(
            urls("http://fleet:8000")[0], offered.extend, interval_s=1, resolver=Names(fleet=["10.0.0.1"])
        )
        asyncio.run(source.resolve_once())
        assert [target.authority for target in offered] == ["fleet:8000"]


class TestResolver:
    def test_a_name_for_tls_is_verified_under_that_name(self) -> None:
        found = asyncio.run(resolve(urls("https://localhost:8443")[0]))
        assert Address("127.0.0.1", 8443, tls=True, server_name="localhost") in found

    def test_an_address_is_listed_once(self) -> None:
        found = asyncio.run(resolve(urls("http://localhost:8000")[0]))
        assert len(found) == len(set(found)) > 0

    def test_a_port_that_nobody_listens_on_is_not_reachable(self) -> None:
        async def probe() -> bool:
            server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            assert await reachable(Address("127.0.0.1", port))
            server.close()
            await server.wait_closed()
            return await reachable(Address("127.0.0.1", port))

        assert asyncio.run(probe()) is False
