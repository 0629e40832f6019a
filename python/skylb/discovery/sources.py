"""The sources of replicas: the option of each, and what makes it a source.

To add one, write its module, and give it an option and a row here.
"""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from skylb.discovery import dns, file, named
from skylb.discovery.source import REPLICAS_MAX, Site, Source
from skylb.settings.discovery import DiscoverySettings
from skylb.settings.kubernetes import KubernetesSettings
from skylb.settings.sections import COMMON, REPLICAS
from skylb.settings.values import FILE, URL, Expected, File, Group, Url

_PLACEHOLDERS = {FILE: "FILE", URL: "URL"}


class SourceSettings(Group):
    """Where replicas are. All sources count together."""

    replica: Annotated[
        tuple[Url, ...],
        URL,
        COMMON,
        REPLICAS,
        Field(
            max_length=REPLICAS_MAX,
            description="URL of a replica. SkyLB resolves a host name again every --discovery-dns-s "
            f"({DiscoverySettings().dns_s:g} s by default).",
        ),
    ] = ()
    replicas_file: Annotated[
        File | None,
        FILE,
        COMMON,
        REPLICAS,
        Field(description="File with one replica URL per line. SkyLB reads it again when it changes."),
    ] = None
    replicas_dns: Annotated[
        tuple[Url, ...],
        URL,
        COMMON,
        REPLICAS,
        Field(
            max_length=64,
            description="URL whose host name resolves to the addresses of several replicas. Each address "
            "is one replica.",
        ),
    ] = ()
    kubernetes: KubernetesSettings = KubernetesSettings()


def make(options: SourceSettings, timing: DiscoverySettings, site: Site) -> list[Source]:
    """The sources that the options ask for."""
    return [
        *named.sources(options.replica, timing, site),
        *file.sources(options.replicas_file, timing, site),
        *dns.sources(options.replicas_dns, timing, site),
        *_kubernetes(options.kubernetes, timing, site),
    ]


def _kubernetes(options: KubernetesSettings, timing: DiscoverySettings, site: Site) -> Iterable[Source]:
    if options.selector is None:
        return ()
    # It imports aiohttp, which `skylb --help` need not wait for.
    from skylb.discovery.kubernetes.source import sources  # noqa: PLC0415 - as the line above says

    return sources(options, timing, site)


def given(options: SourceSettings) -> bool:
    """Whether there is any source."""
    alone = (getattr(options, name) for name in _alone())
    return any(alone) or options.kubernetes.selector is not None


def usage() -> str:
    """The flags of all sources, as an error names them."""
    flags = [
        f"--{name.replace('_', '-')} {_PLACEHOLDERS.get(expected, 'VALUE')}"
        for name in _alone()
        for expected in SourceSettings.model_fields[name].metadata
        if isinstance(expected, Expected)
    ]
    return f"{', '.join(flags)} or --kubernetes-selector SELECTOR"


def _alone() -> list[str]:
    """The options that make a source each; those of Kubernetes make one together."""
    return [name for name in SourceSettings.model_fields if name != "kubernetes"]
