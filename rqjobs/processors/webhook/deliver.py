"""The processor of the queue ``webhooks``."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime

import redis

from rqjobs.attempt import Attempt
from rqjobs.database.webhook_deliveries import RESPONSE_KEPT, Delivery
from rqjobs.database.webhook_endpoints import Endpoint
from rqjobs.database.webhook_health import Health
from rqjobs.errors import PermanentFailure, RQJobsError
from rqjobs.guard import TargetRefused
from rqjobs.jobs import WebhookJob
from rqjobs.logs import event
from rqjobs.processors.webhook import breaker
from rqjobs.processors.webhook.context import Context, context
from rqjobs.processors.webhook.endpoints import key_of
from rqjobs.processors.webhook.message import build
from rqjobs.processors.webhook.outcome import GONE, failure
from rqjobs.processors.webhook.service import Service, service
from rqjobs.processors.webhook.transfer import DeliveryFailed, Response

_MARGIN = 0.2
"""Seconds of a job's time limit that are left for telling how the delivery ended."""
_CUT_OFF = "cut off"
_AWAY = {502, 503, 504}
"""Answers that say that nobody is there to answer."""


async def deliver(job: WebhookJob, attempt: Attempt) -> dict[str, object]:
    """POSTs the job's event, signed, and answers the receiver's status and the milliseconds it took.

    Every attempt ends in the delivery log, whatever it comes to.

    Raises:
        PermanentFailure: the guard refuses the target, its endpoint is disabled, or it will never accept this.
        RetryLater: the receiver said when to come back.
        DeliveryFailed: anything that another attempt may mend.
    """
    shared = context()
    at_work = service(shared)
    key = key_of(job)
    endpoint, own_keys = shared.endpoints.get(key)
    run = _Run(at_work, job, attempt, key if endpoint is None else endpoint.name)  # so that a replay finds it by that
    response: Response | None = None
    error: RQJobsError | None = None
    try:
        url = _url(job, endpoint)
        response = await _post(at_work, url, job, attempt, own_keys or shared.keys)
        error = failure(response, datetime.now(UTC), shared.settings.webhook_retry_after_max)
    except TargetRefused as refused:
        error = PermanentFailure(str(refused))
        if refused.address is not None:
            words = {"id": attempt.job_id, "host": refused.target, "address": refused.address, "rule": refused.rule}
            event(logging.WARNING, "webhook target refused", **words)
    except (PermanentFailure, DeliveryFailed) as failed:
        error = failed
    except Exception as failed:  # a fault of ours: the log is where people look for the delivery, and replay it from
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


def _url(job: WebhookJob, endpoint: Endpoint | None) -> str:
    """Where to deliver: a registered endpoint may have moved since the job was enqueued."""
    if endpoint is None:
        if job.endpoint is not None:
            raise PermanentFailure(f"the endpoint {job.endpoint!r} is not registered (any more)")
        return job.url
    if not endpoint.enabled:
        raise PermanentFailure(
            f"the endpoint is disabled: {endpoint.reason}. Once it is mended: rqjobs webhooks enable, then replay"
        )
    return endpoint.url if job.endpoint is not None else job.url


async def _post(at_work: Service, url: str, job: WebhookJob, attempt: Attempt, keys: list[bytes]) -> Response:
    shared: Context = at_work.context
    target = shared.target(url)
    if not keys:
        shared.tell_unsigned()
    message = build(job, attempt, keys=keys, legacy_key=shared.legacy_key, now=time.time())
    destination = shared.destinations.get(target.origin)
    destination.start(attempt.job_id)
    began, answered = time.time(), None
    try:
        seconds = min(shared.timeout, max(attempt.remaining - _MARGIN, 0.0))
        response = await at_work.client.post(target, message, seconds)
        answered = response.status not in _AWAY
    except DeliveryFailed:
        answered = False
        raise
    finally:
        destination.end(time.time() - began, answered=answered is True)
        if answered is not None and not (answered and not destination.failing):
            await asyncio.to_thread(_tell_breaker, shared, target.origin, attempt.job_id, began, answered=answered)
    return response


def _tell_breaker(shared: Context, origin: str, job_id: str, began: float, *, answered: bool) -> None:
    destination = shared.destinations.get(origin)
    probe = job_id in destination.probes
    destination.probes.discard(job_id)
    destination.failing, destination.clear_until = not answered, 0.0
    try:
        if answered:
            if breaker.report_answer(origin):
                event(logging.INFO, "circuit breaker closed", destination=origin)
        elif breaker.report_failure(origin, began, probe=probe, settings=shared.settings):
            event(
                logging.WARNING, "circuit breaker stays open" if probe else "circuit breaker open", destination=origin
            )
    except redis.exceptions.RedisError as error:
        event(logging.WARNING, "the circuit breaker cannot be told", destination=origin, error=str(error))


class _Run:
    """One attempt on its way into the log."""

    def __init__(self, at_work: Service, job: WebhookJob, attempt: Attempt, key: str) -> None:
        self._at_work, self._job, self._attempt, self._key = at_work, job, attempt, key
        self._at_ms, self._started = int(time.time() * 1000), time.perf_counter()

    def log(self, response: Response | None, error: RQJobsError | None) -> float:
        """Hands the attempt to the log; the milliseconds that it took."""
        job, attempt = self._job, self._attempt
        took = round((time.perf_counter() - self._started) * 1000, 1)
        dead = isinstance(error, PermanentFailure) or attempt.last  # RetryLater from a receiver uses up attempts too
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
            job=job.model_dump_json(exclude_defaults=True) if attempt.number == 1 else None,
        )
        self._at_work.log.add(row, self._health(response, error))
        return took

    def _health(self, response: Response | None, error: RQJobsError | None) -> Health | None:
        if response is None and (not isinstance(error, DeliveryFailed) or error.kind == _CUT_OFF):
            return None  # refused, or ended, by us: it says nothing of the endpoint
        gone = response is not None and response.status == GONE
        return Health(self._key, self._job.url, error is None, self._at_ms, self._at_ms, gone)
