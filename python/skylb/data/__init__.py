"""The data plane: bytes in, decisions asked for, bytes out.

`frontend` accepts, `client` is one connection, `proxy` follows one request from accept to complete,
`relay` one response on its way. Nothing here creates a task, a future or a timer per request unless it must
connect.
"""
