"""Sections of help texts: what a setting is about, which are shown first, and an example of each section.

``--help`` shows the settings with the mark `COMMON`, ``--help-all`` all of them.
"""


class Section(str):
    """Title of the part of a help text in which a setting stands."""

    __slots__ = ()


class Common:
    """Marks a setting that ``--help`` shows: a first user needs it."""

    __slots__ = ()


COMMON = Common()

REPLICAS = Section("replicas")
CLIENTS = Section("clients and operators")
KEYS = Section("keys and certificates")
CHOICE = Section("choice and hold")
REGIONS = Section("regions")
TENANTS = Section("tenants")
LIMITS = Section("limits")
LOGS = Section("logs")
STOP = Section("stop")

BY_GROUP = {
    "kubernetes": REPLICAS,
    "discovery": REPLICAS,
    "mesh": REGIONS,
    "engine": CHOICE,
    "timeout": Section("time-outs"),
    "dns": Section("DNS records"),
    "synthetic": Section("synthetic users"),
}
"""The section of a group's settings that have no mark of their own."""

EXAMPLES: dict[str, str] = {
    REPLICAS: "skylb serve --replica http://gpu1:8000 --replica http://gpu2:8000",
    CLIENTS: "skylb serve --listen 0.0.0.0:8080 --replicas-file replicas.txt",
    KEYS: "skylb serve --keys-file keys.toml --replica-key-file replica.key ...",
    CHOICE: "skylb serve --hold-timeout-s 60 --hold-len-max 2000 ...",
    REGIONS: "skylb serve --region us --peer eu=http://10.2.0.1:7001\n"
    "    --sync-listen 10.1.0.1:7001 --peer-listen 10.1.0.1:7002\n    --peer-key-file peers.key ...",
    TENANTS: "skylb serve --residency acme/*=eu --tenant-header X-Tenant ...",
    LIMITS: "skylb serve --body-bytes-max 128MiB --connections-max 8192 ...",
    LOGS: "skylb serve --log-format json --access-log /var/log/skylb.log ...",
    STOP: "skylb serve --drain-delay-s 5 --drain-timeout-s 120 ...",
    BY_GROUP["timeout"]: "skylb serve --timeout-first-byte-s 120 ...",
    BY_GROUP["dns"]: "skylb serve --dns-provider route53 --dns-name llm.example.net\n"
    "    --dns-address 192.0.2.7 --dns-zone Z1 ...",
}
"""A line to copy, by section of ``skylb serve``."""
