"""The processor of the queue ``webhooks``."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import NamedTuple

import redis

from rqjobs.attempt import Attempt
from rqjobs.config.logs import event
from rqjobs.database.webhook_deliveries import RESPONSE_KEPT, Delivery
from rqjobs.database.webhook_endpoints import Endpoint
from rqjobs.database.webhook_health import Health
from rqjobs.errors import DependencyUnavailable, PermanentFailure, RetryLater, RQJobsError
from rqjobs.jobs import WebhookJob
from rqjobs.jobs.at_rest import decrypt_job, encrypt_job
from rqjobs.processors.webhook import breaker
from rqjobs.processors.webhook.context import Context, Place, context
from rqjobs.processors.webhook.endpoint_cache import key_of
from rqjobs.processors.webhook.request import build
from rqjobs.processors.webhook.response_policy import GONE, failure
from rqjobs.processors.webhook.service import Service, service
from rqjobs.processors.webhook.transfer import DeliveryFailed, Response
from rqjobs.security.masking import without_path
from rqjobs.security.ssrf import TargetRefused

_MARGIN = 0.2
"""Seconds of a job's time limit that are reserved for reporting the outcome of the delivery."""
_CUT_OFF = "cut off"
_AWAY = {502, 503, 504}
"""Status codes by which a proxy reports that its server does not answer."""


async def deliver(job: WebhookJob, attempt: Attempt) -> dict[str, object]:
    """Sends the job's event as a signed POST; returns the receiver's status and the duration in milliseconds.

    Every attempt is written to the delivery log, with any outcome.

    Raises:
        PermanentFailure: the guard refuses the target, its endpoint is disabled, or the response is a final refusal.
        RetryLater: the receiver sent Retry-After.
        DeliveryFailed: the delivery failed and will be retried.
        DependencyUnavailable: the database with the endpoints does not answer.
    """
    shared = context()
    at_work = service(shared)
    key = key_of(job)
    endpoint = shared.endpoints.get(key)
    run = _Run(at_work, job, attempt, key if endpoint is None else endpoint.name)  # the name by which a replay finds it
    response: Response | None = None
    error: RQJobsError | None = None
    try:
        _check_endpoint(job, endpoint)
        signing = shared.endpoints.signing_keys(key) or shared.keys
        response = await _post(at_work, shared.place(job, endpoint), job, attempt, signing)
        error = failure(response, datetime.now(UTC), shared.settings.webhook_retry_after_max)
    except TargetRefused as refused:
        error = PermanentFailure(str(refused))
        if refused.address is not None:
            words = {"id": attempt.job_id, "host": refused.target, "address": refused.address, "rule": refused.rule}
            event(logging.WARNING, "webhook target refused", **words)
    except (PermanentFailure, DeliveryFailed) as failed:
        error = failed
    except (RetryLater, DependencyUnavailable):
        raise  # no delivery was tried, so there is no row in the log
    except Exception as failed:  # an error of ours is logged as well, so that the delivery can be found and replayed
        run.log(None, RQJobsError(f"{type(failed).__name__}: {failed}"))
        raise
    except asyncio.CancelledError:
        run.log(None, DeliveryFailed(_CUT_OFF, "the worker was stopped, or the job's time was up"))
        raise
    took = run.log(response, error)
    if error is not None:
        if response is not None and response.status == GONE:
            shared.endpoints.forget(key)
        raise error
    assert response is not None
    return {"status": response.status, "ms": took}


def _check_endpoint(job: WebhookJob, endpoint: Endpoint | None) -> None:
    if endpoint is None and job.endpoint is not None:
        raise PermanentFailure(f"the endpoint {job.endpoint!r} is not registered (any more)")
    if endpoint is not None and not endpoint.enabled:
        raise PermanentFailure(
            f"the endpoint is disabled: {endpoint.reason}. Once it is fixed: rqjobs webhooks enable, then replay"
        )


async def _post(at_work: Service, place: Place, job: WebhookJob, attempt: Attempt, keys: list[bytes]) -> Response:
    shared: Context = at_work.context
    if not keys:
        shared.tell_unsigned()
    message = build(decrypt_job(job, attempt.job_id), attempt, keys=keys, legacy_key=shared.legacy_key, now=time.time())
    destination = shared.destinations.get(place.destination)
    destination.start(attempt.job_id)
    began, answered, connected = time.time(), None, True
    try:
        seconds = min(shared.timeout, max(attempt.remaining - _MARGIN, 0.0))
        response = await at_work.client.post(place.target, message, seconds, attempt.job_id)
        answered = response.status not in _AWAY
    except DeliveryFailed as failed:
        answered, connected = False, failed.connected
        raise
    finally:
        destination.end(time.time() - began, answered=answered is True)
        if answered is not None and (not answered or destination.failing is None or destination.failing):
            run = _Report(place, attempt.job_id, began, connected, answered)
            await asyncio.to_thread(_tell_breakers, shared, run)
    return response


class _Report(NamedTuple):
    """The outcome of a delivery, for the breakers."""

    place: Place
    job_id: str
    began: float
    connected: bool
    answered: bool


def _tell_breakers(shared: Context, run: _Report) -> None:
    """Reports the outcome of a delivery to its breakers.

    A failed connection counts against the origin, which all its endpoints share. After a connection, a missing answer
    (502, 503, 504 or silence) counts against the endpoint or the URL. A URL that keeps failing counts once against its
    subscription: if many URLs of one subscription fail, its host is the cause.
    """
    destination = shared.destinations.get(run.place.destination)
    probe = run.job_id in destination.probes
    destination.probes.discard(run.job_id)
    destination.clear_until = 0.0
    origin, *own = run.place.breakers
    known = frozenset(run.place.breakers) if destination.failing is None else destination.failing
    well = run.place.breakers if run.answered else [origin] if run.connected else []
    failing = destination.failing or frozenset()
    failed = []
    if not run.answered:
        failed = [origin] if not run.connected else own[:1] if own[0] in failing else own
        if probe:  # its breakers may be open
            failed = [*failed, *(name for name in own if name in failing and name not in failed)]
    try:
        for name in known.intersection(well):
            if breaker.report_answer(name):
                event(logging.INFO, "circuit breaker closed", destination=without_path(name))
        for name in failed:
            if breaker.report_failure(name, run.began, probe=probe, settings=shared.settings):
                text = "circuit breaker stays open" if probe else "circuit breaker open"
                event(logging.WARNING, text, destination=without_path(name))
        destination.failing = known.difference(well).union(failed)
    except redis.exceptions.RedisError as error:
        event(
            logging.WARNING, "the circuit breaker cannot be updated", destination=without_path(origin), error=str(error)
        )


class _Run:
    """One attempt, from its start to its row in the delivery log."""

    def __init__(self, at_work: Service, job: WebhookJob, attempt: Attempt, key: str) -> None:
        self._at_work, self._job, self._attempt, self._key = at_work, job, attempt, key
        self._at_ms, self._started = int(time.time() * 1000), time.perf_counter()

    def log(self, response: Response | None, error: RQJobsError | None) -> float:
        """Passes the attempt to the delivery log; returns its duration in milliseconds."""
        job, attempt = self._job, self._attempt
        took = round((time.perf_counter() - self._started) * 1000, 1)
        dead = error is not None and attempt.ends_with(error)
        row = Delivery(
            job_id=attempt.job_id,
            endpoint=self._key,
            event=job.event,
            attempt=attempt.number,
            at_ms=self._at_ms,
            duration_ms=took,
            status=response.status if response is not None else None,
            outcome="done" if error is None else "dead" if dead else "retry",
            error=None if error is None else str(error),
            response=response.text(RESPONSE_KEPT) if response is not None else None,
            job=self._content() if attempt.number == 1 else None,
        )
        self._at_work.log.add(row, self._health(response, error))
        return took

    def _content(self) -> str:
        """Returns the job for the log, with its headers encrypted.

        A job from an older version has unencrypted headers in Redis.
        """
        return encrypt_job(self._job, self._attempt.job_id, "database").model_dump_json(exclude_defaults=True)

    def _health(self, response: Response | None, error: RQJobsError | None) -> Health | None:
        if response is None and (not isinstance(error, DeliveryFailed) or error.kind == _CUT_OFF):
            return None  # refused or ended by us, so it shows nothing about the endpoint's health
        gone = response is not None and response.status == GONE
        return Health(self._key, self._job.url, error is None, self._at_ms, self._at_ms, gone)
