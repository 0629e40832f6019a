"""What `skylb doctor` sees of the keys file: who gets in, and whether tenants' models are there."""

from collections import Counter
from collections.abc import Sequence

from skylb.clock import unix_ns
from skylb.config import Settings
from skylb.errors import ConfigError
from skylb.keys.document import Document, read
from skylb.keys.ring import EXPIRED, REVOKED, state_of
from skylb.tools.doctor.findings import Report
from skylb.tools.doctor.replicas import Seen

MODELS_SHOWN_MAX = 3


def look_at_keys(settings: Settings, report: Report) -> Document | None:
    """Counts tenants and keys; what the file says. One that is no good is a fault of the configuration."""
    if settings.keys_file is None:
        return None
    try:
        _, document = read(settings.keys_file)
    except ConfigError:
        return None  # its faults were told with those of the other files
    now_ns = unix_ns()
    states = Counter(state_of(key, now_ns) for key in document.keys)
    ended = [f"{states[state]} {state}" for state in (EXPIRED, REVOKED) if states[state]]
    tenants, valid = len(document.tenants), states["valid"]
    counted = ", ".join(
        [f"{tenants} tenant{'s' * (tenants != 1)}", f"{valid} valid key{'s' * (valid != 1)}", *ended]
    )
    if valid:
        report.ok("keys", counted)
    else:
        report.warn(
            "keys",
            f"no key of --keys-file is valid now ({counted}): whoever has to bring a key gets 401",
            f"skylb keys new --file {settings.keys_file} --tenant NAME",
        )
    return document


def look_at_models(document: Document, seen: Sequence[Seen], report: Report) -> None:
    """Tenants' models that no replica lists: a name that is misspelt is refused like one that is gone."""
    lists = [one.models for one in seen]
    if not lists or any(found is None or found.left_out for found in lists):
        return  # a replica without a whole list may serve anything
    listed = {name for found in lists if found is not None for name, _ in found.models}
    for tenant, terms in document.tenants.items():
        absent = [name for name in terms.models or () if name not in listed]
        if absent:
            over = len(absent) - MODELS_SHOWN_MAX
            more = [f"and {over} more"] if over > 0 else []
            report.warn(
                "tenant",
                f"no replica lists models that it may use: {', '.join([*absent[:MODELS_SHOWN_MAX], *more])}",
                "correct its table in --keys-file; nothing, if a peer or a later replica serves them",
                tenant,
            )
