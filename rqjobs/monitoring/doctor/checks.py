"""Runs the checks of ``rqjobs doctor``, which find faults of this installation and change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import redis

from rqjobs.broker.connection import connect
from rqjobs.broker.unreadable import Noted, reading
from rqjobs.errors import RedisUnavailable
from rqjobs.monitoring.doctor import database, jobs, keys, secrets, server, settings, workers
from rqjobs.monitoring.doctor.finding import Finding, fault, fine, skipped

__all__ = ["Finding", "examine"]

_CHECKS: tuple[tuple[str, Callable[[redis.Redis], Iterator[Finding]]], ...] = (
    ("redis version", server.version),
    ("redis persistence", server.persistence),
    ("redis replicas", server.replicas),
    ("redis eviction", server.eviction),
    ("redis memory", server.memory),
    ("clock", server.clock),
    ("secrets at rest", secrets.at_rest),
    ("workers", workers.alive),
    ("worker versions", workers.versions),
    ("queues without a worker", workers.unattended),
    ("queues unknown here", workers.unregistered),
    ("paused queues", workers.paused),
    ("delayed jobs", workers.overdue),
)
_OF_JOBS: tuple[tuple[str, Callable[[jobs.Seen], Iterator[Finding]]], ...] = (
    ("lost jobs", jobs.lost),
    ("serializer", jobs.serializer),
    ("functions", jobs.functions),
)


def examine(*, ask_providers: bool = False, every_job: bool = False) -> Iterator[Finding]:
    """Yields the findings of all checks.

    Args:
        ask_providers: also check the credentials of the mail provider and of ManyChat, over the network.
        every_job: check every job instead of a sample of some thousands: a million jobs take half a minute.
    """
    yield from _say("settings", settings.contradictions())
    yield from _say("folders", settings.folders())
    yield from _say("database", database.schema())
    try:
        client = connect(socket_timeout=10)
    except RedisUnavailable as error:
        yield fault("redis", str(error), error.fix)
        for name in (*(name for name, _check in (*_CHECKS, *_OF_JOBS)), "keys"):
            yield skipped(name, "Redis does not answer")
    else:
        yield fine("redis", "answers")
        noted: Noted = {}
        for name, check in _CHECKS:
            yield from _noting(noted, _say(name, check(client)))
        yield from _noting(noted, _examine_jobs(client, every=every_job))
        yield from _say("keys", keys.types(client, noted.values()))
        client.close()
    if ask_providers:
        from rqjobs.monitoring.doctor import online

        for name, ask in online.ASKED:
            yield from _say(name, ask())


def _noting(noted: Noted, findings: Iterator[Finding]) -> list[Finding]:
    """Yields the findings; adds the keys that their check could not read to ``noted``."""
    with reading() as now:
        found = list(findings)
    noted.update(now)
    return found


def _examine_jobs(client: redis.Redis, *, every: bool) -> Iterator[Finding]:
    try:
        seen = jobs.look(client, every=every)
    except redis.exceptions.RedisError as error:
        for name, _check in _OF_JOBS:
            yield skipped(name, str(error))
        return
    for name, check in _OF_JOBS:
        yield from _say(name, check(seen))


def _say(name: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yields the findings of a check: ``ok`` if there are none, ``skipped`` with the reason if it cannot run."""
    said = False
    try:
        for finding in findings:
            said = True
            yield Finding(name=name, state=finding.state, said=finding.said, fix=finding.fix)
    except redis.exceptions.RedisError as error:  # a managed Redis does not allow some commands
        yield skipped(name, str(error))
        return
    if not said:
        yield fine(name, "")
