"""Whether a request comes from a page of this very listener, or from another one that a browser shows."""

from aiohttp import web

from skylb.addresses import ListenAddress

PAGE_HEADER = "X-SkyLB-Page"
"""Our pages send it. Another page's script cannot: a browser asks us first, and we do not answer yes."""

SAME_SITE = frozenset({"same-origin", "none"})
"""Values of ``Sec-Fetch-Site`` (Fetch Metadata, W3C) for our own page and for what a person typed."""


def foreign(request: web.Request) -> bool:
    """Whether a browser may have carried a request here for another page.

    A page of our own is known by four things. ``Host`` is a loopback name, so that no DNS name that was
    rebound to loopback will do. ``Origin``, where there is one, has that very host and port, so that pages of
    other programs of this machine are foreign too. ``Sec-Fetch-Site``, where there is one, says the same.
    With an ``Origin``, the request bears `PAGE_HEADER`.
    """
    host = request.headers.get("Host", "")
    if not names_loopback(host) or request.headers.get("Sec-Fetch-Site", "none") not in SAME_SITE:
        return True
    origin = request.headers.get("Origin")
    if origin is None:
        return False
    return origin != f"{request.scheme}://{host}" or PAGE_HEADER not in request.headers


def names_loopback(host: str) -> bool:
    """Whether ``Host`` names this machine itself: a rebound DNS name does not."""
    name = host if host.endswith("]") or ":" not in host else host.rpartition(":")[0]
    return name == "" or ListenAddress(name.strip("[]"), 0).is_loopback
