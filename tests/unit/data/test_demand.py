"""Requests by model, as an autoscaler reads them."""

from collections.abc import Iterable

from prometheus_client.core import Metric

from skylb.data import demand
from skylb.data.demand import Demand
from tests.support.dataplane import World, answer, chat, plays, settle


def figures(found: Iterable[Metric]) -> dict[str, dict[str, float]]:
    names = {"skylb_model_held_requests": "held", "skylb_model_in_flight_requests": "in flight"}
    return {
        names[family.name]: {sample.labels["model"]: sample.value for sample in family.samples}
        for family in found
    }


def test_each_request_counts_where_it_is_and_nowhere_once_it_has_ended() -> None:
    async def test(world: World) -> None:
        wanted = Demand([world.frontend], world.router)
        none = {"m": 0.0, "other": 0.0}
        assert figures(wanted.families()) == {"held": none, "in flight": none}, "no request, and figures"
        running, waiting, idle = (world.client() for _ in range(3))
        running.feed(chat())
        waiting.feed(chat())
        replica = await world.sent()
        one = {"m": 1.0, "other": 0.0}
        assert figures(wanted.families()) == {"held": one, "in flight": one}
        waiting.finish()
        replica.feed(answer())
        await settle()
        idle.finish()
        assert figures(wanted.families()) == {"held": none, "in flight": none}
        world.router.set_models(1, [])
        assert figures(wanted.families()) == {"held": none, "in flight": none}, "no series vanishes"

    plays(test, at_once=1)


def test_what_clients_call_a_model_is_no_label_and_labels_are_bounded() -> None:
    async def test(world: World) -> None:
        models = [f"model-{number}" for number in range(demand.MODELS_MAX + 9)]
        world.router.set_models(1, [(model, None) for model in models])
        wanted = Demand([world.frontend], world.router)
        clients = [world.client() for _ in models]
        for client, model in zip(clients, models, strict=True):
            client.feed(chat(model=model))
        await settle()
        counts = figures(wanted.families())["in flight"]
        assert len(counts) == demand.MODELS_MAX + 1
        assert counts.pop("other") == 9
        assert set(counts.values()) == {1}
        for client in clients:
            client.finish()

    plays(test, at_once=100)


def test_a_model_that_is_gone_makes_room_for_a_new_one_unless_it_has_requests() -> None:
    async def test(world: World) -> None:
        wanted = Demand([world.frontend], world.router)

        def listed(*models: str) -> set[str]:
            world.router.set_models(1, [(model, None) for model in models])
            return set(figures(wanted.families())["held"])

        first = [f"model-{number}" for number in range(demand.MODELS_MAX)]
        assert listed(*first) == {*first, "other"}
        busy = world.client()
        busy.feed(chat(model="model-0"))
        await settle()
        assert listed(*first[9:]) == {*first, "other"}, "none is wanted in their place"
        assert listed("new-1", *first[5:]) == {"new-1", *first, "other"} - {"model-1"}
        assert listed("new-2", "new-3") == {"new-1", "new-2", "new-3", *first, "other"} - set(first[1:4])
        busy.finish()

    plays(test, at_once=100)


def test_a_model_that_is_called_like_the_rest_shares_its_label() -> None:
    async def test(world: World) -> None:
        world.router.set_models(1, [("m", None), ("other", None)])
        wanted = Demand([world.frontend], world.router)
        client = world.client()
        client.feed(chat(model="other"))
        await settle()
        labels = [sample.labels["model"] for family in wanted.families() for sample in family.samples]
        assert labels == ["m", "other"] * 2
        assert figures(wanted.families())["in flight"] == {"m": 0, "other": 1}
        client.finish()

    plays(test, at_once=1)
