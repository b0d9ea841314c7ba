"""The processor of ``qr-analytics``: counts one event or a batch; each job of a batch has its own outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from rqjobs.attempt import Attempt
from rqjobs.database import get_engine
from rqjobs.database.outages import database_outage
from rqjobs.database.schema import ensure_schema
from rqjobs.errors import PermanentFailure
from rqjobs.jobs import QRAnalyticsJob
from rqjobs.processors.analytics.enrich import visitor_secret
from rqjobs.processors.analytics.events import QREvent, make_event
from rqjobs.processors.analytics.hooks import call_hooks
from rqjobs.processors.analytics.retention import purge_now_and_then
from rqjobs.processors.analytics.store import store

Item = tuple[QRAnalyticsJob, Attempt]
Outcome = dict[str, Any] | Exception


def record(job: QRAnalyticsJob, attempt: Attempt) -> dict[str, Any]:
    """Counts one event.

    Returns:
        ``event_id``, and whether it was ``counted`` by this call; False if it had been counted before.

    Raises:
        PermanentFailure: a value of the job's data is invalid.
        DependencyUnavailable: the database does not answer.
    """
    outcome = record_batch([(job, attempt)])[0]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def record_batch(items: Sequence[Item]) -> list[Outcome]:
    """Counts many events in one transaction.

    Returns:
        For each item, in order, the result of :func:`record`, or the exception that it would raise.
    """
    outcomes: list[Outcome] = [RuntimeError("not stored")] * len(items)
    secret = visitor_secret()
    parsed: list[tuple[int, QREvent]] = []
    for index, (job, attempt) in enumerate(items):
        try:
            parsed.append((index, make_event(job, attempt, secret)))
        except Exception as error:  # noqa: BLE001  # one bad event must not sink its batch
            outcomes[index] = error
    try:
        engine = get_engine()
        ensure_schema(engine)
    except Exception as error:  # noqa: BLE001  # no event's fault: every job runs again
        for index, _ in parsed:
            outcomes[index] = database_outage(error) or error
        return outcomes
    _store(engine, parsed, items, outcomes)
    purge_now_and_then(engine)
    return outcomes


def _store(engine: Engine, parsed: list[tuple[int, QREvent]], items: Sequence[Item], outcomes: list[Outcome]) -> None:
    if not parsed:
        return
    try:
        fresh = store(engine, [event for _, event in parsed])
    except (OperationalError, InterfaceError, PoolTimeout) as error:  # away or busy: no event's fault
        for index, _ in parsed:
            outcomes[index] = database_outage(error) or error
    except DBAPIError as error:
        if (outage := database_outage(error)) is not None:
            for index, _ in parsed:
                outcomes[index] = outage
        elif len(parsed) > 1:  # one of them cannot be stored: halving isolates it, and the others are stored
            half = len(parsed) // 2
            _store(engine, parsed[:half], items, outcomes)
            _store(engine, parsed[half:], items, outcomes)
        else:
            outcomes[parsed[0][0]] = PermanentFailure(f"the database refuses the event: {error.orig}")
    else:
        for index, event in parsed:
            outcomes[index] = _finish(event, event.event_id in fresh, items[index][1])
            fresh.discard(event.event_id)


def _finish(event: QREvent, counted: bool, attempt: Attempt) -> Outcome:
    # On a later attempt the event may be stored, but the hooks may not have run to their end.
    if counted or attempt.number > 1:
        try:
            call_hooks(event)
        except Exception as error:  # noqa: BLE001  # the app's own code: its error is this job's outcome
            return error
    return {"event_id": event.event_id, "counted": counted}
