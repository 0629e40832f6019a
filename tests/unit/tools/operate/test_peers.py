"""``skylb peers``: what it asks, and what it prints."""

import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from skylb.addresses import ListenAddress
from skylb.errors import SkyLBError
from skylb.tools.operate.ask import AdminSettings, ask
from skylb.tools.operate.peers import render

ROW = {
    "peer": "eu",
    "region": "europe",
    "state": "alive",
    "fault": None,
    "available": True,
    "draining": False,
    "rtt_s": 0.0801,
    "jitter_s": 0.0004,
    "age_s": 0.31,
    "clock_skew_s": 0.002,
    "room": 5,
    "granted": 2,
    "hold": 3,
    "in_flight": 4,
    "forwards_out": 17,
    "forwards_in": 9,
    "digest": {
        "prefixes": 77,
        "age_s": 1.5,
        "hits": 6,
        "tokens": 900,
        "tokens_found": 800,
        "bytes_in": 730,
        "bytes_out": 0,
        "fault": None,
    },
    "bytes_in": 4096,
    "bytes_out": 2048,
    "refused": {},
    "replicas": 2,
    "adopted": 0,
}


def said(*rows: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """An answer to ``GET /peers``."""
    about = {
        "name": "us",
        "region": "us",
        "evacuating": False,
        "strangers_refused": {},
        "forwards_refused": {},
    }
    return about | {"peers": list(rows)} | changed


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what its server holds, and notes what it was asked."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("Authorization")))
        status, body = server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


class UnixServer(socketserver.UnixStreamServer):
    """The same over a Unix socket."""

    def get_request(self) -> tuple[Any, Any]:
        """The handler wants an address of two parts."""
        return super().get_request()[0], ("local", 0)


@contextmanager
def answering(server: Any, status: int, body: bytes) -> Iterator[Any]:
    """A server in a thread."""
    server.asked, server.answer = [], (status, body)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def settings_for(server: Any, **changed: Any) -> AdminSettings:
    host, port = server.server_address
    return AdminSettings(admin=ListenAddress(host, port), **changed)


def test_a_row_says_how_far_how_old_and_how_much_room() -> None:
    text = render(said(ROW), json_lines=False)
    (line,) = (line for line in text.splitlines() if " eu " in line)
    for cell in ("europe", "alive", "80.1", "0.4", "0.31", "5", "3", "17", "9", "77", "2", "4"):
        assert f" {cell} " in line
    assert "us in us" in text


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        ({"fault": "refused by the peer: signature"}, "refused by the peer: signature"),
        ({"digest": {"prefixes": 0, "fault": "the digest is made with another secret"}}, "another secret"),
        ({"clock_skew_s": 3600.4}, "its wall clock is +3600 s"),
        ({"refused": {"replayed": 2}}, "2 refused: replayed"),
        ({"adopted": 2}, "2 of its replicas are served here"),
        ({"rtt_s": None, "age_s": None, "region": None}, "-"),
    ],
)
def test_what_does_not_fit_stands_in_the_row(changed: dict[str, Any], note: str) -> None:
    text = " ".join(render(said(ROW | changed), json_lines=False).replace("│", " ").split())
    assert all(word in text for word in note.split())


def test_who_was_turned_away_stands_below_the_table() -> None:
    text = render(
        said(ROW, strangers_refused={"version": 1, "key": 3}, forwards_refused={"hop": 2}), json_lines=False
    )
    assert text.splitlines()[-2:] == [
        "connections refused: 3 key, 1 version",
        "forwards refused: 2 hop",
    ]


def test_what_is_wrong_with_the_list_stands_below_the_table() -> None:
    lists = {"kubernetes skylb": {"age_s": 42.4, "fault": "it is away"}, "peers": {"age_s": 1, "fault": None}}
    text = render(said(ROW, lists=lists), json_lines=False)
    assert text.splitlines()[-1] == "list of kubernetes skylb: it is away (age 42 s)"


def test_json_is_a_line_per_peer() -> None:
    lines = render(said(ROW, ROW | {"peer": "asia"}), json_lines=True).splitlines()
    assert [json.loads(line)["peer"] for line in lines] == ["eu", "asia"]


def test_it_asks_with_the_token_over_tcp_and_unix_sockets(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    body = json.dumps(said(ROW)).encode()
    with answering(http.server.HTTPServer(("127.0.0.1", 0), Handler), 200, body) as server:
        assert ask(settings_for(server, admin_token_file=token), "GET", "/peers")["peers"] == [ROW]
        assert server.asked == [("/peers", "Bearer secret")]
    path = str(tmp_path / "admin.sock")
    with answering(UnixServer(path, Handler), 200, body):
        assert ask(AdminSettings(admin=ListenAddress(path, 0, unix=True)), "GET", "/peers")["name"] == "us"


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, b'{"error":{"message":"this balancer has no peers"}}', "this balancer has no peers"),
        (500, b"{}", "status 500"),
        (200, b"<html>", "no answer"),
    ],
)
def test_a_refusal_is_one_line(status: int, body: bytes, message: str) -> None:
    with answering(http.server.HTTPServer(("127.0.0.1", 0), Handler), status, body) as server:
        with pytest.raises(SkyLBError, match=message):
            ask(settings_for(server), "GET", "/peers")


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SkyLBError, match="no answer"):
        ask(AdminSettings(admin=ListenAddress(str(tmp_path / "none"), 0, unix=True)), "GET", "/peers")


def test_what_stayed_in_an_evacuated_region_stands_above_the_table() -> None:
    assert "requests that stayed" not in render(said(evacuating=True), json_lines=False)
    shown = render(said(evacuating=True, stayed=3), json_lines=False)
    assert "evacuating; requests that stayed, as no peer took them: 3" in shown
