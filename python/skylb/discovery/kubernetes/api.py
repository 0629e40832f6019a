"""The API server of Kubernetes, asked for EndpointSlices: configuration, credentials, bounded answers.

The client library is imported here and in `loader` alone, and only if it is asked for.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from skylb.discovery.kubernetes.helper import HelperError, NoHelperError
from skylb.discovery.kubernetes.slices import Status, read_status
from skylb.errors import ConfigError, SkyLBError

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, the CA's certificate and its namespace."""

REQUEST_S = 30.0
"""For one page of a list, and to connect for a watch."""

CREDENTIALS_S = 30.0
"""For all credentials of a kubeconfig; a helper among them has less."""

PAGE_LEN = 100
"""Slices of one page."""

PAGE_BYTES_MAX = 64 << 20
"""A slice has 100 endpoints as Kubernetes comes, and then 60 kB; at most it is some 2 MB (etcd's limit)."""

EVENT_BYTES_MAX = 8 << 20
"""One slice, and room for what a server may add to it."""

ERROR_BYTES_MAX = 64 << 10
MESSAGE_LEN_MAX = 300
"""Of what a server says, in the log."""

NAMESPACE_LEN_MAX = 253

RETRY_AFTER_S_MAX = 60.0

FORBIDDEN = 403
UNAUTHORIZED = 401
GONE = 410

_USER = re.compile(r'User "([^"]{1,253})"')


class AwayError(SkyLBError):
    """The API server was not reached, or broke off; or there are no credentials at present."""


class RefusedError(SkyLBError):
    """The API server answered with an error.

    Attributes:
        status: HTTP's, or that of an event.
        retry_after_s: how long it wants to be left alone; 0 if it does not say.
    """

    def __init__(self, text: str, *, status: int, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_s = retry_after_s


class Api:
    """An API server as one account sees it.

    Args:
        config: a kubeconfig file; without it, the account of the pod that this process runs in.
        account: where that account's files are.
    """

    def __init__(self, config: Path | None = None, account: Path = ACCOUNT) -> None:
        self._config = config
        self._account = account
        self._client: Any = None
        self._slices: Any = None
        self._lack: AwayError | None = None
        """Why there are no credentials yet; the next request says so, and those behind it ask again."""
        self.namespace = "default"
        """Of the account, or of the kubeconfig's context."""
        self.host = ""

    async def open(self) -> None:
        """Reads configuration and credentials. If nobody gives these now, requests ask for them again.

        Raises:
            ConfigError: the configuration cannot be used.
        """
        try:
            await self._open()
        except AwayError as error:
            self._lack = error

    async def _open(self) -> None:
        from kubernetes_asyncio import client  # noqa: PLC0415 - of an extra, which the settings have asked for

        configuration = client.Configuration()
        if self._config is None:
            self.namespace = _load_account(configuration, self._account)
        else:
            loader = _loader(self._config)
            self.host = loader.server
            context = (loader.current_context or {}).get("context", {})
            self.namespace = str(context.get("namespace") or "default")
            await _authenticate(loader, configuration, self._config)
        self.host = str(configuration.host)
        try:
            self._client = client.ApiClient(configuration)
        except (OSError, ValueError) as error:  # the ssl module says both of certificates
            raise ConfigError(
                [f"kubernetes: the certificates for {self.host} are no good: {error}"]
            ) from error
        self._slices = client.DiscoveryV1Api(self._client)

    async def renew(self) -> None:
        """Reads configuration and credentials again.

        Raises:
            AwayError: nobody gives credentials now; what was read before stays in use.
            ConfigError: the configuration cannot be used; likewise.
        """
        before = self._client
        await self._open()
        if before is not None:
            await before.close()

    async def close(self) -> None:
        """Closes its connections."""
        if self._client is not None:
            await self._client.close()

    async def page(self, namespace: str, selector: str, token: str | None) -> bytes:
        """A page of the list of slices; ``token`` is the one that the page before it ended with.

        Raises:
            AwayError: there is no whole answer.
            RefusedError: the answer is an error.
        """
        # No version is asked for: the list is what etcd has now. A server without etcd answers an error.
        options = {"limit": PAGE_LEN} | ({"_continue": token} if token else {})
        async with self._asked("list", namespace, selector, options, REQUEST_S) as response:
            return await _content(response, PAGE_BYTES_MAX)

    @asynccontextmanager
    async def watch(
        self, namespace: str, selector: str, version: str, *, watch_s: int, limit_s: float
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        """The events behind a version: those of one read together, as lines.

        Args:
            namespace: where.
            selector: of which slices.
            version: of the list or event before.
            watch_s: when the server should end it.
            limit_s: when it is given up.

        Raises:
            AwayError: it was not reached, broke off, or did not end in time.
            RefusedError: the answer is an error.
        """
        options = {
            "watch": True,
            "allow_watch_bookmarks": True,
            "resource_version": version,
            "timeout_seconds": watch_s,
        }
        async with self._asked("watch", namespace, selector, options, limit_s) as response:
            yield _lines(response)

    @asynccontextmanager
    async def _asked(
        self, verb: str, namespace: str, selector: str, options: dict[str, Any], limit_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        from kubernetes_asyncio.config import ConfigException  # noqa: PLC0415 - as in `open`

        await self._ready()
        try:
            async with asyncio.timeout(limit_s):
                response = await self._slices.list_namespaced_endpoint_slice(
                    namespace,
                    label_selector=selector,
                    _preload_content=False,
                    _request_timeout=aiohttp.ClientTimeout(total=None, connect=REQUEST_S),
                    **options,
                )
                async with response:
                    if response.status != 200:
                        raise await self._refused(response, verb, namespace)
                    yield response
        except TimeoutError:
            raise AwayError(f"{self.host} does not answer in {limit_s:g} s") from None
        except (aiohttp.ClientError, OSError, ConfigException) as error:  # the last: the token's file is away
            raise AwayError(f"{self.host} is not reached: {error or type(error).__name__}") from error

    async def _ready(self) -> None:
        lack, self._lack = self._lack, None
        if lack is not None:
            raise lack
        if self._client is None:
            try:
                await self._open()
            except ConfigError as error:  # the file was good at the start
                raise AwayError(error.faults[0]) from error

    async def _refused(self, response: aiohttp.ClientResponse, verb: str, namespace: str) -> RefusedError:
        status = read_status(await _content(response, ERROR_BYTES_MAX))
        text = said(status, response.status, verb, namespace, self.host)
        retry_after_s = _seconds(response.headers.get("Retry-After", ""))
        return RefusedError(text, status=response.status, retry_after_s=retry_after_s)


def _seconds(text: str) -> float:
    """What ``Retry-After`` asks for, up to a bound; a date counts as nothing: our clock may be another."""
    if not (text.isascii() and text.isdigit()):
        return 0.0
    return min(float(text[:20]), RETRY_AFTER_S_MAX)


def said(status: Status, code: int, verb: str, namespace: str, host: str) -> str:
    """An error of the API server, for people: a missing right is named."""
    message = " ".join(status.message.split())[:MESSAGE_LEN_MAX]
    if code == FORBIDDEN:
        user = _USER.search(status.message)
        return (
            f"{user[1] if user else 'the account'} may not {verb} endpointslices (API group "
            f"discovery.k8s.io) in namespace {namespace}: grant it the verbs list and watch there"
        )
    if code == UNAUTHORIZED:
        return f"{host} does not accept the credentials (401 {message or 'Unauthorized'})"
    return f"{host} answers {verb} with {code} {message or status.reason}".rstrip()


async def _content(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > bytes_max:
            raise AwayError(f"an answer of more than {bytes_max} bytes is not read")
    return bytes(content)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    """Whole lines, those that came together; a rest without an end is no event."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if max(len(rest), *map(len, lines), 0) > EVENT_BYTES_MAX:
            raise AwayError(f"an event of more than {EVENT_BYTES_MAX} bytes is not read")
        if lines:
            yield [line for line in lines if line]


def _load_account(configuration: "Configuration", account: Path) -> str:
    from kubernetes_asyncio import config  # noqa: PLC0415 - as in `Api.open`

    try:
        config.load_incluster_config(  # type: ignore[no-untyped-call]  # the library leaves it without annotations
            configuration,
            token_filename=str(account / "token"),
            cert_filename=str(account / "ca.crt"),
        )
        with (account / "namespace").open() as file:
            return file.read(NAMESPACE_LEN_MAX).strip() or "default"
    except (config.ConfigException, OSError) as error:
        why = f"kubernetes: there is no service account ({error}): expected a pod that has one"
        raise ConfigError([f"{why}, or kubernetes.config"]) from error


async def _authenticate(loader: Any, configuration: "Configuration", path: Path) -> None:
    """Has a kubeconfig's credentials, and all else that it says, put into a configuration.

    Raises:
        AwayError: nobody gives credentials now.
        ConfigError: the file is no good, or names a helper that cannot be started.
    """
    where = f"kubernetes.config: {path}"
    try:
        async with asyncio.timeout(CREDENTIALS_S):
            await loader.load_and_set(configuration)
    except NoHelperError as error:
        raise ConfigError([f"{where}: {str(error)[:MESSAGE_LEN_MAX]}"]) from error
    except TimeoutError:
        raise AwayError(f"{where}: there are no credentials after {CREDENTIALS_S:g} s") from None
    except (HelperError, aiohttp.ClientError) as error:  # the latter: where a token is fetched
        raise AwayError(f"{where}: {str(error)[:MESSAGE_LEN_MAX] or type(error).__name__}") from error
    except _faults() as error:
        raise _broken(path, error) from error


def check_config(path: Path | None) -> None:
    """Reads a kubeconfig, and asks nobody.

    Raises:
        ConfigError: it is none.
    """
    if path is not None:
        _loader(path)


def _loader(path: Path) -> Any:
    from kubernetes_asyncio.config.kube_config import KubeConfigMerger  # noqa: PLC0415 - as in `Api.open`

    from skylb.discovery.kubernetes.loader import Loader  # noqa: PLC0415 - it needs the library

    try:
        return Loader(KubeConfigMerger(str(path)).config, config_base_path=None)
    except _faults() as error:
        raise _broken(path, error) from error


def _faults() -> tuple[type[Exception], ...]:
    """What the library raises at a file that is no kubeconfig: it does not check before it reads."""
    import yaml  # noqa: PLC0415 - of the same extra
    from kubernetes_asyncio.config import ConfigException  # noqa: PLC0415 - as in `Api.open`

    return (
        ConfigException,
        yaml.YAMLError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        AssertionError,
    )


def _broken(path: Path, error: Exception) -> ConfigError:
    why = " ".join(str(error).split()) or type(error).__name__
    return ConfigError([f"kubernetes.config: {path}: expected a kubeconfig: {why[:MESSAGE_LEN_MAX]}"])
