"""Checks deliveries before they start: those to a destination that does not answer are parked, and use no slot."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import redis
from sqlalchemy.exc import SQLAlchemyError

from rqjobs.attempt import Attempt, Hold
from rqjobs.broker.connection import get_connection
from rqjobs.broker.holds import held_scopes
from rqjobs.database.outages import database_outage
from rqjobs.errors import DependencyUnavailable, RQJobsError
from rqjobs.jobs import WebhookJob
from rqjobs.processors.webhook import breaker
from rqjobs.processors.webhook.context import Context, Place, context
from rqjobs.processors.webhook.destinations import Destination
from rqjobs.processors.webhook.endpoint_cache import key_of
from rqjobs.processors.webhook.host_names import SCOPE
from rqjobs.security.ssrf import TargetRefused

_CLEAR_FOR = 0.25  # seconds for which a closed breaker is not queried again
_MOMENT = 0.1  # seconds after which deliveries that wait for a new destination's first responses are checked again
_NEW_PACE = 2000.0  # the most of them checked again per second
_TOGETHER = 0.02  # seconds for which parked deliveries are collected into one request


def admit(jobs: Sequence[tuple[WebhookJob, Attempt]]) -> list[Hold | None]:
    """Returns for each of ``jobs`` None, or a hold with the time of the next check.

    At most one round trip, mostly none.

    Raises:
        DependencyUnavailable: the database with the endpoints does not answer; deliveries to plain URLs wait as well,
            because a URL may be that of a disabled endpoint.
    """
    shared = context()
    try:
        shared.endpoints.load({key_of(job) for job, _ in jobs})
    except (SQLAlchemyError, RQJobsError) as error:  # the secrets and URLs of endpoints are needed
        raise database_outage(error) or DependencyUnavailable("database", str(error)) from error
    holds: list[Hold | None] = [None] * len(jobs)
    groups: dict[str, tuple[Place, list[int]]] = {}
    for index, (job, _) in enumerate(jobs):
        if place := _place(shared, job):
            groups.setdefault(place.destination, (place, []))[1].append(index)
    attempts = [attempt for _, attempt in jobs]
    for index, hold in itertools.chain(_resolve(shared, groups, attempts), _ask_breakers(shared, groups, attempts)):
        holds[index] = hold
        shared.names.leave(attempts[index].job_id)
    return holds


def _resolve(
    shared: Context, groups: dict[str, tuple[Place, list[int]]], attempts: Sequence[Attempt]
) -> Iterator[tuple[int, Hold]]:
    """Yields the jobs, by index, that must wait for the addresses of their host; removes them from ``groups``."""
    unknown = [item for item in groups.values() if not shared.names.is_known(item[0].target.host)]
    trials = frozenset[str]()
    if unknown and shared.names.away_since is not None:
        # Without a hold one delivery is admitted and reports the dependency, so that pages show why the others wait.
        held = _trials()
        trials = frozenset({attempts[unknown[0][1][0]].job_id}) if held is None else held
    for place, indices in unknown:
        ready = []
        for index in indices:
            job_id = attempts[index].job_id
            wait = None if job_id in trials else shared.names.admit(place.target.host, job_id)
            if wait is None:
                ready.append(index)
            else:
                yield index, _hold(time.time() + wait[0], wait[1])
        indices[:] = ready


def _trials() -> frozenset[str] | None:
    """Returns the jobs that are trials of our name servers; None if no hold has been reported yet."""
    try:
        hold = held_scopes(get_connection(), "webhooks").get(SCOPE)
    except redis.exceptions.RedisError:
        return frozenset()
    return hold.jobs if hold is not None else None


def _ask_breakers(
    shared: Context, groups: dict[str, tuple[Place, list[int]]], attempts: Sequence[Attempt]
) -> Iterator[tuple[int, Hold]]:
    """Yields the jobs that must wait, by index."""
    now, moment = time.monotonic(), time.time()
    unanswered = shared.destinations.unanswered(now)
    requests: list[breaker.AdmissionRequest] = []
    about: list[str] = []
    for name, (place, indices) in groups.items():
        if not indices:
            continue
        destination = shared.destinations.get(name)
        room = shared.destinations.room(destination, unanswered, now)
        unanswered += 0 if destination.prompt(now) else min(room, len(indices))
        if destination.clear_until > now and room >= len(indices):
            for index in indices:
                destination.admit(attempts[index].job_id, now)
        elif destination.parks_until > moment + _TOGETHER and shared.destinations.asks_at > moment:
            hold = _hold(shared.destinations.asks_at, f"{name} does not answer")
            yield from ((index, hold) for index in indices)
        else:
            silent = destination.silent(now)
            asked = [(attempts[index].job_id, _order(attempts[index])) for index in indices]
            requests.append(breaker.AdmissionRequest(place.breakers, room, silent, asked))
            about.append(name)
    if not requests:
        return
    shared.destinations.asks_at = moment + _TOGETHER
    try:
        answers = breaker.ask(requests, shared.settings)
    except redis.exceptions.RedisError:
        return  # while Redis does not answer, breakers stop no deliveries
    for name, request, answer in zip(about, requests, answers, strict=True):
        destination = shared.destinations.get(name)
        destination.failing = answer.failing
        destination.clear_until = now + _CLEAR_FOR if answer.clear else 0.0
        yield from _apply_verdicts(request, answer, destination, groups[name])


def _apply_verdicts(
    request: breaker.AdmissionRequest,
    answer: breaker.Answer,
    destination: Destination,
    group: tuple[Place, Sequence[int]],
) -> Iterator[tuple[int, Hold]]:
    now, moment = time.monotonic(), time.time()
    place, indices = group
    destination.parks_until = 0.0
    for index, (job_id, _), verdict in zip(indices, request.jobs, answer.verdicts, strict=True):
        if verdict == "probe":
            destination.probes.add(job_id)
        if verdict in ("go", "probe"):
            destination.admit(job_id, now)
        elif verdict == "soon":
            destination.asked_again = max(time.time() + _MOMENT, destination.asked_again + 1 / _NEW_PACE)
            yield index, _hold(destination.asked_again, f"{place.destination} has not answered yet")
        else:
            until = moment + float(verdict)
            destination.parks_until = min(destination.parks_until or until, until)
            yield index, _hold(until, f"{place.destination} does not answer: parked")


def _order(attempt: Attempt) -> float | None:
    """Returns the job's place among the parked deliveries.

    Failed ones come last: otherwise the first of them would be every trial delivery.
    """
    return attempt.enqueued_at.timestamp() if attempt.number == 1 else None


def _place(shared: Context, job: WebhookJob) -> Place | None:
    """Returns the destination of the job; None if the job will be refused."""
    endpoint = shared.endpoints.get(key_of(job))
    if endpoint is not None and not endpoint.enabled:
        return None
    try:
        return shared.place(job, endpoint)
    except TargetRefused:
        return None


def _hold(moment: float, reason: str) -> Hold:
    return Hold(datetime.fromtimestamp(moment, UTC), reason)
