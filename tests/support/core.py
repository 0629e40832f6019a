"""Parts of one request, for tests of the core through Python."""

from skylb._core import Head, HeadParser, Relay, Request, RequestIds, Sender

CLIENT = Sender("127.0.0.1:50000", "http", False, False)


def head(path: str = "/v1/chat/completions", method: str = "POST", lines: str = "", length: int = 2) -> Head:
    """A head as a client's library sends it."""
    text = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{lines}"
    text += f"Content-Length: {length}\r\n\r\n" if method == "POST" else "\r\n"
    parsed = HeadParser().parse(text.encode())
    assert parsed is not None
    return parsed


def request(of: Head | None = None, *, start_ns: int = 1) -> Request:
    """A request whose body is not read yet; its id is ``req-1``."""
    return Request(of or head(), CLIENT, RequestIds("req"), start_ns, 2)


def relay(of: Head | None = None, *, keep_alive: bool = True) -> Relay:
    """What reads the response to such a request."""
    return request(of).relay(keep_alive)


def answered(body: bytes = b"{}", of: Head | None = None) -> Relay:
    """A relay that has read a whole answer."""
    made = relay(of)
    made.feed(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )
    return made
