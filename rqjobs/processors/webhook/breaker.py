"""The circuit breaker's seam to Redis, where all workers share its state (rqjobs/broker/lua/breaker.lua)."""

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
"""How long an open breaker parks deliveries at most before the next probe."""
_PROBE_MARGIN = 5.0  # seconds after a probe's deadline in which its worker tells how it ended


@dataclass(frozen=True, slots=True)
class Question:
    """May these jobs start?"""

    breakers: Sequence[str]
    """Those that the jobs pass, the origin's first."""
    room: int
    """How many of them this worker has room for."""
    silent: bool
    """Whether it leaves this worker's deliveries unanswered: then what there is no room for is parked."""
    jobs: Sequence[tuple[str, float | None]]
    """Their ids, and when they were enqueued (Unix time; None comes last): in this order they start again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one destination."""

    clear: bool
    """Its breakers are closed and nothing is parked: no need to ask for a while."""
    failing: frozenset[str]
    """The breakers that have counted failures lately: a success is news to them."""
    verdicts: Sequence[str]
    """For each job ``go``, ``probe``, ``soon`` (no room yet), or the seconds after which to ask again."""


def _run(*words: Any) -> Any:
    return load_script("breaker")(args=[keys.PREFIX, *words], client=get_connection())


def ask(questions: Sequence[Question], settings: Settings) -> list[Answer]:
    """Every destination's answer, in one round trip."""
    patience = settings.webhook_timeout.total_seconds() + _PROBE_MARGIN
    words: list[Any] = ["ask", settings.webhook_pace, patience]
    for question in questions:
        words += [question.room, int(question.silent), len(question.breakers), *question.breakers, len(question.jobs)]
        for job_id, enqueued in question.jobs:
            words += (job_id, "" if enqueued is None else repr(enqueued))
    return [
        Answer(
            clear == 1,
            frozenset(name for name, fails in zip(question.breakers, failing, strict=True) if fails),
            [verdict.decode() for verdict in verdicts],
        )
        for question, (clear, failing, verdicts) in zip(questions, _run(*words), strict=True)
    ]


def report_answer(destination: str) -> bool:
    """It answered, or (an origin) was connected to: what is parked starts again, paced. Whether it was open."""
    return bool(_run("ok", destination))


def report_failure(destination: str, began: float, *, probe: bool, settings: Settings) -> bool:
    """It did not answer, or (an origin) was not connected to, by an attempt that began at ``began`` (Unix time).

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """The state of one destination or origin that has failed lately, or for which deliveries are parked."""

    destination: str
    """An origin such as ``https://example.com:443``, a registered endpoint's name, a URL, or origin and webhook_id."""
    state: str
    """``closed``, ``open`` (deliveries are parked) or ``probing`` (one of them is out to find out)."""
    failures: int
    """Deliveries in a row that it did not answer."""
    parked: int
    next_try: datetime | None
    """When an open one tries again."""


def breakers() -> list[Breaker]:
    """Those of destinations that have failed lately, or have deliveries parked, by name."""
    connection, prefix = get_connection(), f"{keys.PREFIX}:webhooks:breaker:"
    names = sorted(name.decode() for name in cast("list[bytes]", connection.zrange(keys.DESTINATIONS, 0, -1)))
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hmget(prefix + name, "f", "open")
            pipeline.zcard(keys.breaker_line(name))
        answers = pipeline.execute()
    found = []
    for name, (failures, opened), parked in zip(names, answers[::2], answers[1::2], strict=True):
        until = float(opened or 0)
        state = "closed" if until == 0 else "open" if until > time.time() else "probing"
        if until or parked or float(failures or 0):
            found.append(
                Breaker(
                    destination=name,
                    state=state,
                    failures=int(float(failures or 0)),
                    parked=parked,
                    next_try=datetime.fromtimestamp(until, UTC) if state == "open" else None,
                )
            )
    return found
