"""The data plane: bytes in, decisions asked for, bytes out.

`frontend` keeps the connections, `client` is one connection, `proxy` follows one request from accept to
complete. `leg` is one attempt of a request with its response. Nothing here creates a task, a future or a
timer per request, unless the request needs a new connection or has a large body. A thread reads large bodies
(`reading`).
"""
