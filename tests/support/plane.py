"""A control plane in this process, and a server with a metrics page that a test can change."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from skylb._core import LOG_OFF, Engine, Recorder
from skylb.config import DiscoverySettings, EngineSettings, Settings, TimeoutSettings
from skylb.control import Control
from skylb.localrouter import LocalRouter
from skylb.metrics import Metrics
from skylb.upstream import Pool

VLLM_PAGE = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="m"}} {running}.0
vllm:num_requests_waiting{{engine="0",model_name="m"}} {waiting}.0
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} 0.5
"""
SGLANG_PAGE = 'sglang:num_running_reqs{model_name="m"} 2.0\nsglang:num_queue_reqs{model_name="m"} 1.0\n'


class FakeReplica:
    """A server with a metrics page and a list of models that a test can change."""

    def __init__(self) -> None:
        self.page = VLLM_PAGE.format(running=3, waiting=1)
        self.status = 200
        self.models: list[dict[str, Any]] = [{"id": "m", "max_model_len": 4096}]
        self.models_status = 200
        self.models_asked = 0
        self.headers: dict[str, str] = {}
        self.probes = 0
        self.narrowed = 0
        self.narrow: Callable[[FakeReplica, list[str]], web.Response] | None = None
        """What answers those who name the metrics they want; ``None``: nobody, 404."""
        self.at_once = 0
        self.at_once_max = 0
        self.release = asyncio.Event()
        self.release.set()
        self.url = ""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/metrics/", self._narrowed)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)

    async def start(self, site: Callable[[web.AppRunner], web.BaseSite] | None = None) -> None:
        await self._runner.setup()
        made = site(self._runner) if site is not None else web.TCPSite(self._runner, "127.0.0.1", 0)
        await made.start()
        if not self.url:
            self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        self.release.set()
        await self._runner.cleanup()

    @property
    def connections(self) -> int:
        return len(self._runner.server.connections) if self._runner.server is not None else 0

    async def _metrics(self, request: web.Request) -> web.Response:
        self.headers = dict(request.headers)
        self.probes += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            await self.release.wait()
        finally:
            self.at_once -= 1
        return web.Response(text=self.page, status=self.status)

    async def _narrowed(self, request: web.Request) -> web.Response:
        self.narrowed += 1
        if self.narrow is None:
            return web.Response(status=404)
        return self.narrow(self, request.query.getall("name[]"))

    async def _models(self, request: web.Request) -> web.Response:
        del request
        self.models_asked += 1
        return web.json_response({"object": "list", "data": self.models}, status=self.models_status)


class Plane:
    """A control plane with everything it stands on."""

    def __init__(self, settings: Settings) -> None:
        engine = Engine(settings.engine.model_dump_json().encode(), b"k" * 16, 1)
        self.router = LocalRouter(engine)
        self.pool = Pool(connect_timeout_s=1.0)
        self.metrics = Metrics(
            recorder=Recorder(LOG_OFF, 0, "prefix", 0),
            engine=engine,
            buffer_bytes=lambda: 0,
            log_dropped=lambda: 0,
        )
        self.failures: list[str] = []
        self.control = Control(
            settings, self.router, self.pool, self.metrics, lambda name, _error: self.failures.append(name)
        )

    def gauge(self, url: str) -> Any:
        return next(gauge for gauge in self.router.gauges() if gauge.name == url)

    def state(self, url: str) -> str:
        return self.control.states().get(url, "absent")


def settings(*urls: str, **fields: Any) -> Settings:
    return Settings(
        replica=urls,
        engine=EngineSettings(probe_interval_s=0.01, probe_idle_interval_s=0.01),
        timeout=fields.pop("timeout", TimeoutSettings(probe_s=1.0)),
        discovery=DiscoverySettings(file_s=0.01, dns_s=0.02, models_s=0.05),
        **fields,
    )


@asynccontextmanager
async def running(plane_settings: Settings, authorization: str | None = None) -> AsyncIterator[Plane]:
    plane = Plane(plane_settings)
    plane.control.set_authorization(authorization)
    try:
        await plane.control.start()
        yield plane
    finally:
        await plane.control.close()
        await plane.pool.close()
        plane.router.close()


async def until(condition: Callable[[], object], what: str) -> None:
    """Lets the loop run until ``condition`` holds; fails after 10 s."""
    try:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - conditions are plain values of other parts
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(what) from None


def run(test: Callable[[FakeReplica], Coroutine[Any, Any, None]]) -> None:
    """Runs a test with one replica; afterwards no task is left."""

    async def whole() -> None:
        replica = FakeReplica()
        await replica.start()
        try:
            await test(replica)
        finally:
            await replica.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())
    gc.collect()  # an unclosed transport warns here, and warnings are errors
