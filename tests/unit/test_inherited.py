"""Who gets which of the sockets that a process was started with."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from skylb.addresses import ListenAddress
from skylb.errors import ConfigError
from skylb.inherited import SOCKETS_MAX, Passed, assigned, passed

PID = 7
MINE = {"LISTEN_PID": "7"}
LOCAL = ListenAddress("127.0.0.1", 0)


def test_descriptors_count_from_3_and_have_their_names() -> None:
    variables = {**MINE, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "client::skylb.socket"}
    found = passed(variables, PID)
    assert found == [Passed(3, "client"), Passed(4, ""), Passed(5, "skylb.socket")]
    assert [one.named for one in found] == [True, False, False]
    assert passed({**MINE, "LISTEN_FDS": "1"}, PID) == [Passed(3, "")]


@pytest.mark.parametrize("variables", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "8"}, MINE])
def test_what_is_meant_for_another_process_is_nothing(variables: dict[str, str]) -> None:
    assert passed(variables, PID) == []


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"LISTEN_FDS": "x"}, r"LISTEN_FDS: 'x': expected a number of sockets, at most 256"),
        ({"LISTEN_FDS": "-1"}, r"LISTEN_FDS: '-1': expected"),
        ({"LISTEN_FDS": "9" * 5000}, r"LISTEN_FDS: '9+': expected"),
        ({"LISTEN_FDS": str(SOCKETS_MAX + 1)}, r"LISTEN_FDS: '257': expected"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "client"}, r"LISTEN_FDNAMES: 1 names: expected 2"),
    ],
)
def test_variables_that_contradict_themselves_are_faults(variables: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        passed({**MINE, **variables}, PID)


def given(sock: socket.socket, name: str = "") -> Passed:
    """A socket as it arrives: a descriptor of its own."""
    return Passed(os.dup(sock.fileno()), name)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as made:
        yield made


def test_what_is_not_passed_is_bound(sock: socket.socket) -> None:
    other = ListenAddress("127.0.0.1", 1)
    at = ListenAddress("127.0.0.1", sock.getsockname()[1])
    found = assigned([given(sock)], {"client": [other, at], "admin": [LOCAL]})
    with closing(found["client"].sockets[0]) as taken:
        assert (taken.address, taken.inherited, taken.gettimeout()) == (at, True, 0.0)
        assert not os.get_inheritable(taken.fileno())
    assert found["client"].addresses == [other]
    assert (found["admin"].sockets, found["admin"].addresses) == ([], [LOCAL])


def test_a_named_socket_takes_the_place_of_all_addresses(sock: socket.socket) -> None:
    found = assigned([given(sock, "client")], {"client": [LOCAL, ListenAddress("::1", 9)]})
    with closing(found["client"].sockets[0]):
        assert found["client"].addresses == []


def test_port_0_is_no_address_that_a_socket_could_be_at(sock: socket.socket) -> None:
    with pytest.raises(ConfigError, match=r"it has no name, so it is expected at .*: listen 127\.0\.0\.1:0"):
        assigned([given(sock)], {"client": [LOCAL]})


def test_a_unix_socket_is_found_by_its_path_and_never_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with closing(socket.socket(socket.AF_UNIX)) as unix:
        unix.bind(path)
        unix.listen()
        found = assigned([given(unix)], {"client": [ListenAddress(path, 0, unix=True)]})
        assert found["client"].addresses == []
        found["client"].sockets[0].release()
        assert Path(path).is_socket()


@pytest.mark.parametrize(("host", "fits"), [("::", True), ("0.0.0.0", True), ("127.0.0.1", False)])
def test_a_socket_at_every_address_serves_both_families(host: str, fits: bool) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with closing(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)) as both:
        wanted = {"client": [ListenAddress(host, both.getsockname()[1])]}
        if fits:
            assigned([given(both)], wanted)["client"].sockets[0].close()
        else:
            with pytest.raises(ConfigError):
                assigned([given(both)], wanted)


def test_nothing_stays_open_behind_a_fault(sock: socket.socket) -> None:
    with ExitStack() as stack:
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        good, bad = given(sock, "client"), given(datagrams, "client")
        with pytest.raises(ConfigError, match=rf"^socket {bad.descriptor} \(client\): expected a socket"):
            assigned([good, bad], {"client": [LOCAL]})
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(good.descriptor)
        os.close(bad.descriptor)
