"""The check of stored secrets: whether they are encrypted, and every process can decrypt them."""

from __future__ import annotations

from collections.abc import Iterator

import redis

from rqjobs.config.encryption import UnreadableSecret, key_names, keyring
from rqjobs.config.settings import get_settings
from rqjobs.database import get_engine
from rqjobs.database.schema import HEAD, schema_version
from rqjobs.database.webhook_endpoints import list_endpoints
from rqjobs.errors import RQJobsError
from rqjobs.monitoring.doctor.finding import Finding, fault
from rqjobs.monitoring.workers import workers

_LOOKED_AT = 10_000  # endpoints
_SAME = "set RQJOBS_SECRET_KEY to the same text for all processes, list the key before it in RQJOBS_SECRET_KEY_OLD"


def at_rest(client: redis.Redis) -> Iterator[Finding]:
    """Checks that secrets are encrypted, and that the workers and this process have the keys."""
    if get_settings().rqjobs_secret_key is None and (missing := {"database", "redis"} - keyring().stores):
        said = f"RQJOBS_SECRET_KEY is not set: secrets in {' and '.join(sorted(missing))} are in clear"
        yield fault("", said, "set it to the same text for all processes, then: rqjobs db reencrypt")
    ours = key_names()[:1]
    for worker in workers(client):
        # A worker without a key of its own had none at its start; it reads the one in RQJOBS_DATA when it needs it.
        reads_later = worker.keys == () and get_settings().rqjobs_secret_key is None
        if worker.keys is not None and ours and ours[0] not in worker.keys and not reads_later:
            yield fault("", f"{worker.name} on {worker.host} cannot decrypt what this process encrypts", _SAME)
    unreadable = _unreadable_endpoints()
    if unreadable:
        said = (
            f"{len(unreadable):,} endpoints have a secret that cannot be decrypted here, {unreadable[0]!r} among them"
        )
        yield fault("", said, f"{_SAME}; or give them new ones: rqjobs webhooks rotate NAME")


def _unreadable_endpoints() -> list[str]:
    found = []
    try:
        if schema_version(get_engine()) != HEAD:
            return []  # reported by the check of the database
        for endpoint in list_endpoints(get_engine(), limit=_LOOKED_AT):
            try:
                endpoint.secrets  # noqa: B018  # decrypts them
            except UnreadableSecret:
                found.append(endpoint.name)
    except RQJobsError:  # reported by the check of the database
        return []
    return found
