"""Settings of Kubernetes: which EndpointSlices list the replicas, and how its API is reached."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated

from pydantic import BeforeValidator, Field

from skylb.errors import missing
from skylb.settings.sections import COMMON
from skylb.settings.values import FILE, Expected, File, Group

NAMESPACES_MAX = 16
"""Namespaces of one balancer: it watches each by itself."""

SELECTOR_LEN_MAX = 1024

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL)
_PORT = re.compile(rf"{_LABEL}|[0-9]{{1,5}}")

_KEY = r"(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?"
_SET = rf"\(\s*{_VALUE}(?:\s*,\s*{_VALUE})*\s*\)"
_REQUIREMENT = rf"\s*(?:!?\s*{_KEY}|{_KEY}\s*(?:==?|!=)\s*{_VALUE}|{_KEY}\s+(?:not)?in\s*{_SET})\s*"
_SELECTOR = re.compile(rf"{_REQUIREMENT}(?:,{_REQUIREMENT})*")
"""Label selectors as the API server reads them: equality, sets and existence, joined by commas."""


def _selector(value: object) -> object:
    if isinstance(value, str) and (len(value) > SELECTOR_LEN_MAX or not _SELECTOR.fullmatch(value)):
        raise ValueError("not a label selector")
    return value


def _namespace(value: object) -> object:
    if isinstance(value, str) and not _NAMESPACE.fullmatch(value):
        raise ValueError("not the name of a namespace")
    return value


def _port(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a file may have it as a number
    if isinstance(value, str) and not (
        _PORT.fullmatch(value) and (not value.isdigit() or 1 <= int(value) <= 65535)
    ):
        raise ValueError("neither the name nor the number of a port")
    return value


def read_service(value: str) -> tuple[str, str | None]:
    """The name and namespace of ``NAME`` or ``NAME.NAMESPACE``.

    Raises:
        ValueError: it is neither.
    """
    name, dot, namespace = value.partition(".")
    if not _NAMESPACE.fullmatch(name) or (dot and not _NAMESPACE.fullmatch(namespace)):
        raise ValueError("neither NAME nor NAME.NAMESPACE of a Service")
    return name, namespace if dot else None


def uninstalled() -> str | None:
    """What to do where the client library is not there."""
    return missing("kubernetes-asyncio") if find_spec("kubernetes_asyncio") is None else None


class KubernetesSettings(Group):
    """Replicas that Kubernetes lists."""

    selector: Annotated[
        str | None,
        BeforeValidator(_selector),
        Expected("a label selector, as kubernetes.io/service-name=vllm or app=vllm,tier!=test"),
        COMMON,
        Field(
            description="Label selector of EndpointSlices whose endpoints are replicas. SkyLB follows their "
            "changes. A slice has the labels of its Service, and kubernetes.io/service-name."
        ),
    ] = None
    namespace: Annotated[
        tuple[Annotated[str, BeforeValidator(_namespace)], ...],
        Expected("the name of a namespace"),
        Field(
            max_length=NAMESPACES_MAX,
            description="Namespace of the slices. Without it, the namespace in which SkyLB runs, or that of "
            "the context of --kubernetes-config.",
        ),
    ] = ()
    port: Annotated[
        str | None,
        BeforeValidator(_port),
        Expected("the name of a port, or its number from 1 to 65535"),
        Field(
            description="Port of the replicas: the name or number of a port of the slices. Needed where they "
            "have several."
        ),
    ] = None
    config: Annotated[
        File | None,
        FILE,
        Field(
            description="Kubeconfig file with the address of the API server and the credentials for it. Give "
            "it where SkyLB runs outside of the cluster. Inside, SkyLB uses its service account."
        ),
    ] = None

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        if self.selector is None:
            for name in ("namespace", "port"):
                if getattr(self, name):
                    yield (
                        {f"kubernetes.{name}", "kubernetes.selector"},
                        f"kubernetes.{name} is given without kubernetes.selector: expected both",
                    )
        for name in ("selector", "config"):
            absent = uninstalled() if getattr(self, name) is not None else None
            if absent is not None:
                yield {f"kubernetes.{name}"}, f"kubernetes.{name}: {absent}"
        repeated = sorted({name for name in self.namespace if self.namespace.count(name) > 1})
        if repeated:
            yield (
                {"kubernetes.namespace"},
                f"kubernetes.namespace: {repeated[0]} is given twice: expected distinct namespaces",
            )
