"""The admin listener's verb for the policy: ``PUT /policy``."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from skylb import _core
from skylb.admin.refusal import field_of, json_answer


class PolicyService(Protocol):
    """What shows and changes the policy."""

    @property
    def policy(self) -> str:
        """The policy by which requests are placed now."""

    def set_policy(self, name: str, /) -> None:
        """Places requests by another policy of `skylb._core.policies` from now on."""


def put_policy(service: PolicyService) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler: ``{"policy": NAME}`` is answered with the policy that holds now, and the one before."""
    names = [name for name, _, _ in _core.policies()]

    async def handle(request: web.Request) -> web.StreamResponse:
        """Places requests by another policy, until the next start: `{"policy": "round_robin"}` and so on."""
        name = field_of(await request.read(), "policy", "bad_policy", names)
        before = service.policy
        service.set_policy(name)
        return json_answer({"policy": service.policy, "before": before})

    return handle
