"""The processor of the queue ``webhooks``."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from functools import lru_cache

import pycurl

from rqjobs.attempt import Attempt
from rqjobs.errors import PermanentFailure
from rqjobs.guard import Guard, TargetRefused
from rqjobs.jobs import WebhookJob
from rqjobs.processors.webhook.message import build
from rqjobs.processors.webhook.outcome import failure
from rqjobs.processors.webhook.transfer import Transfer
from rqjobs.settings import Settings, get_settings
from rqjobs.signing import parse_secret

_local = threading.local()


@lru_cache(maxsize=8)
def _guard(allow: tuple[str, ...], ports: frozenset[int]) -> Guard:
    return Guard.build(allow, ports)


def _transfer(guard: Guard, settings: Settings) -> Transfer:
    """This thread's handle: it keeps its connections open for the next delivery."""
    ca_file = str(settings.webhook_ca_file) if settings.webhook_ca_file else None
    if getattr(_local, "made_for", None) != (guard, ca_file):
        _local.transfer, _local.made_for = Transfer(guard, ca_file), (guard, ca_file)
    transfer: Transfer = _local.transfer
    return transfer


def deliver(job: WebhookJob, attempt: Attempt) -> dict[str, object]:
    """POSTs the job's event, signed, and answers the receiver's status and the milliseconds it took.

    Raises:
        PermanentFailure: the target is refused by the guard, or the receiver will never accept it.
        RetryLater: the receiver said when to come back.
        DeliveryFailed: anything that another attempt may mend.
    """
    settings = get_settings()
    guard = _guard(settings.webhook_allow, settings.webhook_ports)
    started = time.perf_counter()
    message = build(
        job,
        attempt,
        keys=[parse_secret(secret.get_secret_value()) for secret in settings.webhook_signing_secret],
        legacy_key=legacy.get_secret_value().encode() if (legacy := settings.webhook_legacy_secret) else None,
        now=time.time(),
    )
    transfer = _transfer(guard, settings)
    try:
        target = guard.check_url(job.url)
        transfer.prepare(target, message, min(settings.webhook_timeout.total_seconds(), attempt.remaining))
        try:
            transfer.curl.perform()
        except pycurl.error as error:
            response = transfer.finish(*error.args)
        else:
            response = transfer.finish(pycurl.E_OK, "")
    except TargetRefused as refused:
        raise PermanentFailure(str(refused)) from None
    failed = failure(response, datetime.now(UTC), settings.webhook_retry_after_max)
    if failed is not None:
        raise failed
    return {"status": response.status, "ms": round((time.perf_counter() - started) * 1000, 1)}
