"""What operators have asked of a balancer that runs, and no setting says: it goes along in a hand-over."""

from msgspec.structs import astuple

from skylb.admin.operations import Operations
from skylb.config import Settings
from skylb.control import Control
from skylb.handover.protocol import Intent, Leaving, RegionOrder
from skylb.localrouter import LocalRouter
from skylb.mesh.frames import Order
from skylb.mesh.mesh import Mesh


def asked(settings: Settings, router: LocalRouter, control: Control, mesh: Mesh | None) -> Intent:
    """What has been asked of this process."""
    policy, continuing = router.policy, router.continuing
    leaving = control.leaving().items()
    return Intent(
        draining=control.drained_by_operators(),
        leaving=[Leaving(name, at_ns, ends) for name, (at_ns, ends) in leaving],
        isolated=[] if mesh is None else sorted(mesh.peers.isolated),
        reached=[] if mesh is None else mesh.reached,
        regions=[] if mesh is None else [RegionOrder(*astuple(order)) for order in mesh.peers.orders()],
        policy=None if policy == settings.engine.policy else policy,
        continuing=None if continuing == settings.continue_streams else continuing,
    )


def carry_out(intent: Intent, control: Control, operations: Operations) -> None:
    """What has been asked of the process before this one counts on."""
    control.intend(intent.draining, {of.name: (of.at_ns, of.ends) for of in intent.leaving})
    for name in intent.isolated:
        operations.isolate(name, isolated=True)
    if operations.mesh is not None:
        for order in intent.regions:
            operations.mesh.peers.carry_out(Order(*astuple(order)))
    if intent.policy is not None:
        operations.set_policy(intent.policy)
    if intent.continuing is not None:
        operations.set_continuing(intent.continuing)
