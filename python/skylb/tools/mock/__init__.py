"""``skylb mock``: replicas that answer like vLLM, from the replica model, in real time.

`profiles` and `settings` say what kind, `server` binds the sockets, `connection` speaks HTTP. `replica`
drives one ``_core.ReplicaModel`` with the event loop's clock. `api` holds the shapes of each inference
route, and `metrics` writes vLLM's page.
"""

from skylb.tools.mock.server import MockFleet, serve, start
from skylb.tools.mock.settings import MockSettings

__all__ = ["MockFleet", "MockSettings", "serve", "start"]
