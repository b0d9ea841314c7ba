"""Webhooks for the app: register endpoints, emit an event to all subscribed endpoints, replay failed deliveries.

    from rqjobs.webhooks import add_endpoint, emit

    endpoint, secret = add_endpoint("shop", "https://shop.example/hook", events=["booking.*"])
    emit("booking.created", {"id": 7})

Not imported by ``import rqjobs``, because it needs the database, and enqueueing does not.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Unpack, overload

from rqjobs.broker.connection import client_of
from rqjobs.broker.job_builder import JobOptions
from rqjobs.broker.rq_schema import SERIALIZER
from rqjobs.broker.rq_types import Job
from rqjobs.database import get_engine
from rqjobs.database import webhook_deliveries as deliveries
from rqjobs.database import webhook_endpoints as endpoints
from rqjobs.database.webhook_deliveries import Filter
from rqjobs.database.webhook_endpoints import Endpoint, EndpointExists, UnknownEndpoint
from rqjobs.enqueueing import enqueue_many
from rqjobs.errors import DuplicateJob, InvalidJob
from rqjobs.jobs import WebhookJob

__all__ = ["Endpoint", "EndpointExists", "Filter", "Replay", "UnknownEndpoint", "add_endpoint", "emit", "replay"]

_REPLAYED_AT_ONCE = 500
_LONGEST_EVENT_ID = 500
_SLOWEST = 0.001  # deliveries per second: a million of them would take thirty years


@overload
def add_endpoint(
    name: str,
    url: str,
    *,
    events: Sequence[str] | None = ...,
    secret: str | None = ...,
    replace: Literal[False] = ...,
) -> tuple[Endpoint, str]: ...


@overload
def add_endpoint(
    name: str, url: str, *, events: Sequence[str] | None = ..., secret: str | None = ..., replace: bool
) -> tuple[Endpoint, str | None]: ...


def add_endpoint(
    name: str, url: str, *, events: Sequence[str] | None = None, secret: str | None = None, replace: bool = False
) -> tuple[Endpoint, str | None]:
    """Registers an endpoint; with ``replace``, changes the URL of an existing one, and the other values that are given.

    Args:
        name: the app's name for it, such as the customer's id.
        url: the URL for deliveries.
        events: its subscriptions: exact names, ``booking.*``, or ``*`` for all (the default of a new endpoint).
        secret: a ``whsec_...`` secret that the receiver has already; by default one is made for a new endpoint.
        replace: change an endpoint with this name, if there is one. False by default, so that one tenant cannot take
            over the name of another.

    Returns:
        The endpoint, and the new secret: give it to the receiver now, because it cannot be read again. None if
            ``replace``
        kept the endpoint's secret; ``rqjobs webhooks rotate`` makes a new one.

    Raises:
        EndpointExists: the name is registered, and ``replace`` is not set.
        ValueError: the name, the URL, an event or the secret is invalid.
        DatabaseUnavailable: the database does not answer.
    """
    return endpoints.add_endpoint(get_engine(), name, url, events=events, secret=secret, replace=replace)


def emit(
    event: str, payload: Mapping[str, Any], /, *, event_id: str | None = None, **options: Unpack[JobOptions]
) -> list[Job]:
    """Enqueues ``event`` for every enabled endpoint that has subscribed to it, in one round trip.

    Args:
        event: such as ``booking.created``.
        payload: the data of the event, an object that JSON can represent.
        event_id: the app's own id of the event, 1 to 500 characters. Each delivery's job id (its ``webhook-id``) is
            made from it and the endpoint's name, so a repeated call enqueues nothing again, as with ``unique=True``.
        options: as for ``enqueue_webhook``, except ``job_id``: each delivery needs its own id.

    Returns:
        The jobs, one for each endpoint, including those of an earlier call with this ``event_id``; none if no endpoint
        has subscribed.

    Raises:
        InvalidJob: the event, the payload or an option is invalid; nothing is enqueued.
        RedisUnavailable: Redis does not answer.
        DatabaseUnavailable: the database does not answer.
    """
    if options.get("job_id") is not None:
        raise InvalidJob("emit", ["job_id: each endpoint's delivery needs an id of its own"])
    WebhookJob(
        webhook_id="emit", event=event, url="https://example.com", payload=dict(payload)
    )  # raises for faults, even if no endpoint has subscribed
    if event_id is not None and not 1 <= len(event_id) <= _LONGEST_EVENT_ID:
        raise InvalidJob("emit", [f"event_id: 1 to {_LONGEST_EVENT_ID} characters are needed"])
    wanted = [endpoint for endpoint in endpoints.list_endpoints(get_engine()) if endpoint.enabled]
    jobs = [
        WebhookJob(webhook_id=each.name, event=event, url=each.url, payload=dict(payload), endpoint=each.name)
        for each in wanted
        if each.wants(event)
    ]
    if event_id is None:
        return enqueue_many(jobs, **options)
    ids = [_delivery_id(event_id, str(job.endpoint)) for job in jobs]
    own: list[JobOptions] = [{"job_id": job_id, "unique": True} for job_id in ids]
    try:
        return enqueue_many(list(zip(jobs, own, strict=True)), **options)
    except DuplicateJob:  # some are of an earlier call; the others are enqueued
        connection = client_of(options.get("connection"))
        found = Job.fetch_many(ids, connection=connection, serializer=SERIALIZER)
        return [job for job in found if job is not None]


def _delivery_id(event_id: str, endpoint: str) -> str:
    """Returns 32 characters, unique for this event and endpoint."""
    digest = hashlib.sha256(f"{event_id}\0{endpoint}".encode()).digest()
    return base64.b32hexencode(digest[:20]).decode().lower()


@dataclass
class Replay:
    """The result of a replay."""

    enqueued: list[str] = field(default_factory=list)
    """The ids of the deliveries that are sent again; each keeps its webhook-id."""
    under_way: list[str] = field(default_factory=list)
    """The ids of deliveries that are still waiting, delayed or running."""
    lost: list[str] = field(default_factory=list)
    """The ids of deliveries whose content is no longer in the log."""


def replay(wanted: Filter, *, pace: float = 10, delivered_too: bool = False, dry_run: bool = False) -> Replay:
    """Sends the deliveries again that ``wanted`` finds in the delivery log, oldest first.

    Args:
        wanted: the filter.
        pace: the rate, in deliveries per second.
        delivered_too: also send those that succeeded in the end.
        dry_run: send nothing; return the deliveries that would be sent.

    Raises:
        ValueError: the pace is below 0.001.
        RedisUnavailable: Redis does not answer.
        DatabaseUnavailable: the database does not answer.
    """
    if not pace >= _SLOWEST:  # also refuses NaN
        raise ValueError(f"a pace of {pace:g} deliveries a second: the least is {_SLOWEST}")
    found = list(deliveries.replayable(get_engine(), wanted, delivered_too=delivered_too))
    outcome = Replay(lost=[job_id for job_id, job in found if job is None])
    jobs: list[tuple[WebhookJob, JobOptions]] = []
    for job_id, job in found:
        if job is not None:
            delay = timedelta(seconds=len(jobs) / pace)
            jobs.append((WebhookJob.parse(job), {"job_id": job_id, "delay": delay}))
    for start in range(0, len(jobs), _REPLAYED_AT_ONCE):
        chunk = jobs[start : start + _REPLAYED_AT_ONCE]
        refused: Sequence[str] = ()
        if not dry_run:
            try:
                enqueue_many(chunk)
            except DuplicateJob as error:
                refused = error.job_ids
        outcome.under_way += refused
        outcome.enqueued += [str(options["job_id"]) for _, options in chunk if options["job_id"] not in refused]
    return outcome
