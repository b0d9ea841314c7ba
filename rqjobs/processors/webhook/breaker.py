"""The circuit breaker of a destination, with its state in Redis for all workers (rqjobs/broker/lua/breaker.lua)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from rqjobs.broker import keys
from rqjobs.broker.connection import get_connection
from rqjobs.broker.scripts import load_script
from rqjobs.config.settings import Settings

LONGEST_PAUSE = timedelta(minutes=5)
"""The longest time for which an open breaker parks deliveries before the next trial delivery."""
_PROBE_MARGIN = 5.0  # seconds after the deadline of a trial delivery for its worker to report the outcome


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """A request to admit jobs to one destination."""

    breakers: Sequence[str]
    """The names of the jobs' breakers, that of the origin first."""
    room: int
    """The number of this worker's slots for the destination."""
    silent: bool
    """Whether the destination does not answer this worker; then jobs without a slot are parked."""
    jobs: Sequence[tuple[str, float | None]]
    """The ids and the times of enqueueing (Unix time; None comes last), by which parked jobs resume in order."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The response for one destination."""

    clear: bool
    """Whether its breakers are closed and nothing is parked, so that the next deliveries need no request."""
    failing: frozenset[str]
    """The breakers with recent failures, to which a success must be reported."""
    verdicts: Sequence[str]
    """For each job ``go``, ``probe`` (a trial delivery), ``soon`` (no slot yet), or seconds until the next request."""


def _run(*arguments: Any) -> Any:
    return load_script("breaker")(args=[keys.PREFIX, *arguments], client=get_connection())


def ask(requests: Sequence[AdmissionRequest], settings: Settings) -> list[Answer]:
    """Returns the responses for all requests, in one round trip."""
    patience = settings.webhook_timeout.total_seconds() + _PROBE_MARGIN
    arguments: list[Any] = ["ask", settings.webhook_pace, patience]
    for request in requests:
        arguments += [request.room, int(request.silent), len(request.breakers), *request.breakers, len(request.jobs)]
        for job_id, enqueued in request.jobs:
            arguments += (job_id, "" if enqueued is None else repr(enqueued))
    return [
        Answer(
            clear == 1,
            frozenset(name for name, fails in zip(request.breakers, failing, strict=True) if fails),
            [verdict.decode() for verdict in verdicts],
        )
        for request, (clear, failing, verdicts) in zip(requests, _run(*arguments), strict=True)
    ]


def report_answer(destination: str) -> bool:
    """Records that a destination has answered, or an origin has accepted a connection, after which deliveries resume.

    Returns:
        Whether the breaker was open.
    """
    return bool(_run("ok", destination))


def report_failure(destination: str, began: float, *, probe: bool, settings: Settings) -> bool:
    """Records that a destination has not answered, or an origin has refused a connection.

    Args:
        destination: the name of the breaker.
        began: the start of the attempt, in Unix time.
        probe: whether the attempt was a trial delivery.
        settings: the thresholds and pauses.

    Returns:
        Whether that opened the breaker (again).
    """
    opened = _run(
        "fail",
        destination,
        repr(max(0.0, time.time() - began)),
        int(probe),
        settings.webhook_breaker_failures,
        settings.webhook_breaker_after.total_seconds(),
        settings.webhook_breaker_pause.total_seconds(),
        LONGEST_PAUSE.total_seconds(),
    )
    return bool(opened)


_LATEST = 10**11
"""A time in Unix seconds, or a number of failures, from which on it is forged: datetime ends before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The state of one destination or origin that has failed recently, or has parked deliveries."""

    destination: str
    """An origin such as ``https://example.com:443``, the name of an endpoint, a URL, or an origin with a webhook_id."""
    state: str
    """``closed``, ``open`` (deliveries are parked) or ``probing`` (a trial delivery is running)."""
    failures: int
    """The number of consecutive deliveries without an answer."""
    parked: int
    next_try: datetime | None
    """The time of the next trial delivery, if the breaker is open."""


def breakers() -> list[Breaker]:
    """Returns the breakers of destinations that have failed recently or have parked deliveries, sorted by name."""
    connection, prefix = get_connection(), f"{keys.PREFIX}:webhooks:breaker:"
    members = cast("list[bytes]", connection.zrange(keys.DESTINATIONS, 0, -1))
    names = sorted(name.decode(errors="replace") for name in members)
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hmget(prefix + name, "f", "open")
            pipeline.zcard(keys.breaker_parked(name))
        answers = pipeline.execute()
    found = []
    for name, fields, parked in zip(names, answers[::2], answers[1::2], strict=True):
        failures, until = map(_number, fields)
        state = "closed" if until == 0 else "open" if until > time.time() else "probing"
        if until or parked or failures:
            found.append(
                Breaker(
                    destination=name,
                    state=state,
                    failures=int(failures),
                    parked=parked,
                    next_try=datetime.fromtimestamp(until, UTC) if state == "open" else None,
                )
            )
    return found


def _number(value: bytes | None) -> float:
    """Returns a number of a breaker's hash; 0 if it is missing or invalid."""
    try:
        found = float(value or 0)
    except ValueError:
        return 0.0
    return found if 0 <= found < _LATEST else 0.0
