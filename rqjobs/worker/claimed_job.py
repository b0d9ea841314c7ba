"""A job that this worker has taken, and what became of it."""

from __future__ import annotations

import json
import time
import traceback
import zlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any, NamedTuple

from rqjobs.attempt import JOB_ID, Attempt
from rqjobs.broker.attempts import reason_of
from rqjobs.broker.rq_schema import ENTRY, LARGEST_DATA, TooLarge, decode_data, read_call
from rqjobs.dead_letters.fingerprint import cause_of
from rqjobs.dead_letters.index import entry
from rqjobs.errors import DependencyUnavailable, InvalidJob, PermanentFailure, RetryLater, UnknownQueue
from rqjobs.jobs import JobModel
from rqjobs.policies import QueuePolicy, base_queue
from rqjobs.worker.outages import outage_of

RESULT_TTL = 24 * 3600
"""Seconds that a done job is kept, within the last 100 of its queue."""

MAX_DEATHS = 3
"""After so many workers died under a job, the job is taken for the cause."""

UNSERIALIZABLE = "Unserializable return value"
"""What is kept of a result that is not JSON, as RQ has it."""

MAX_RESULT_BYTES = 64 * 2**20
"""Bytes of a result that are kept, as JSON: what is larger, Redis would refuse, and a done job would run again."""

TOO_LARGE = "Return value too large to be kept"
"""What is kept of a larger one."""

MAX_INTERVALS_BYTES = 100_000
"""Bytes of a job's ``retry_intervals`` that are read."""

ERROR_LIMIT = 16_000
"""Characters of a traceback that are kept: its end, where the reason is."""


class Outcome(NamedTuple):
    """What became of a job, as finish.lua wants it."""

    how: str
    """``done``, ``retry``, ``dead``, ``stop``, ``bury``, ``back``, ``hold``, ``away``; ``written`` if RQ's own path
    has written it, ``left`` if it could not."""
    words: tuple[str | bytes | int | float, str | int | float, str | int, str | int] = ("", "", "", "")
    started: float = 0.0
    ended: float = 0.0
    entry: str = ""
    """Of a death: what the index of dead letters says of it."""


class NeedsRQCompat(Exception):
    """The job is no plain job of ours: RQ's own path, with its registered functions only, is to judge it."""


class ClaimedJob:
    """One job from its reservation until its outcome is written."""

    __slots__ = (
        "_unsettled", "attempt", "attempts", "blame", "created_at", "data", "enqueued_at", "execution",
        "failure_ttl", "fault", "intervals", "isolated", "job_id", "lane", "model", "number", "outcome", "policy",
        "report", "result_ttl", "retries_left", "rq_compat", "timeout", "trial",
    )  # fmt: skip

    def __init__(self, words: Sequence[Any], lane: str, policy: QueuePolicy, report: Callable[..., None]) -> None:
        """Reads the words of reserve.lua."""
        job_id, execution, _lane, rq_compat, data, timeout, left, intervals, created_at, *rest = words
        result_ttl, failure_ttl, enqueued_at, *trial = rest
        self.job_id: str = job_id.decode()
        self.execution: str = execution.decode()
        self.lane = lane
        self.policy = policy
        self.rq_compat = rq_compat == b"1"
        self.isolated = rq_compat == b"2"
        """Workers have died under it, and it may not happen again."""
        self.data: bytes = data
        self.created_at: bytes = created_at
        self.enqueued_at: bytes = enqueued_at or created_at  # a first run's is not kept twice
        """When it came into its queue the last time: a retry's wait begins anew."""
        self.fault: str | None = None
        """Why the job's hash cannot be read; anybody with access to Redis may have written it."""
        self.timeout = 0.0
        self.retries_left = 0
        self.intervals: tuple[float, ...] = ()
        self.result_ttl = RESULT_TTL
        self.failure_ttl: int | str = ""
        try:
            self.timeout = float(timeout) if timeout else policy.timeout.total_seconds()
            self.retries_left = int(left) if left else 0
            self.intervals = _read_intervals(intervals) if intervals else ()
            self.result_ttl = int(result_ttl) if result_ttl else RESULT_TTL
            self.failure_ttl = int(failure_ttl) if failure_ttl else ""
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            self.fault, self.rq_compat = f"refused: a field of the job's hash cannot be read: {error}", False
        if rq_compat == b"3":
            self.fault = f"refused: the job's hash has over {LARGEST_DATA >> 20} MiB"
        elif JOB_ID.fullmatch(self.job_id) is None:
            self.fault, self.rq_compat = (
                "refused: the job's id has other characters than letters, digits, _ and -",
                False,
            )
        self.attempts = len(self.intervals) + 1
        self.number = max(1, self.attempts - self.retries_left)
        self.report = report
        self.trial: bytes | None = trial[0] if trial else None
        """The job is the trial of a held queue: the stage, ``run`` or ``admit``, that found the dependency away."""
        self.blame: tuple[BaseException | str, float] | None = None
        """The error that blames a dependency, or its text, and when the run began."""
        self.model: JobModel | None = None
        self.attempt: Attempt | None = None
        self.outcome: Outcome | None = None
        self._unsettled = [True]

    def settle(self, outcome: Outcome) -> bool:
        """Sets the outcome; False if there was one already. Whoever comes first decides: the thread that ran the
        job, the watchdog that gave it up, the shutdown that handed it back.
        """  # noqa: D205
        try:
            self._unsettled.pop()  # atomic
        except IndexError:
            return False
        self.outcome = outcome
        return True

    @property
    def settled(self) -> bool:
        """Whether there is an outcome."""
        return not self._unsettled

    def prepare(self) -> tuple[JobModel, Attempt]:
        """The job model and the attempt that the processor gets.

        Raises:
            NotOurs: another function, or another shape.
            PermanentFailure: the payload is not a job of this queue.
        """
        if self.model is None:
            self.model = self._parse()
        self.attempt = Attempt(
            job_id=self.job_id,
            queue=self.lane,
            number=self.number,
            of=max(self.attempts, self.number),
            enqueued_at=_when(self.created_at),
            timeout=_duration(self.timeout),
            report=partial(self.report, self.job_id),  # no method of ours: a circle would wait for the collector
        )
        return self.model, self.attempt

    def _parse(self) -> JobModel:
        if self.fault is not None:
            raise PermanentFailure(self.fault)
        try:
            function, instance, (queue, payload), options = read_call(self.data)
        except TooLarge as error:
            raise PermanentFailure(f"refused: {error}") from None
        except (ValueError, TypeError, zlib.error, RecursionError):
            raise NeedsRQCompat from None
        if function != ENTRY or instance is not None or options or not isinstance(payload, dict):
            raise NeedsRQCompat
        if queue != self.policy.name:
            raise PermanentFailure(f"refused: a job of {str(queue)[:100]!r} in the queue {base_queue(self.lane)!r}")
        try:
            return self.policy.job_type.parse(payload)
        except (InvalidJob, UnknownQueue) as error:
            raise PermanentFailure(f"refused: {error}") from error

    def done(self, result: object, started: float) -> Outcome:
        """The outcome of a processor that returned."""
        try:
            text = "" if result is None else json.dumps(result)
        except (TypeError, ValueError, RecursionError):
            text = json.dumps(UNSERIALIZABLE)
        if len(text) > MAX_RESULT_BYTES:  # ASCII
            text = json.dumps(TOO_LARGE)
        value = b64encode(text.encode()) if text else ""
        return Outcome("done", (value, self.result_ttl, "", ""), started, time.time())

    def failed(self, error: BaseException, started: float, text: str | None = None) -> Outcome:
        """The outcome of a processor that raised: tried again, or dead."""
        if (outage := outage_of(error, self.policy)) is not None:
            return self.away(outage, started, error)
        if text is None:
            text = "".join(traceback.format_exception(error))
        return self.failure(
            text,
            started,
            permanent=isinstance(error, PermanentFailure),
            after=error.after.total_seconds() if isinstance(error, RetryLater) else None,
            counts=not isinstance(error, RetryLater) or error.counts,
        )

    def away(self, error: DependencyUnavailable, started: float, blame: BaseException | str) -> Outcome:
        """The outcome of a run that found a dependency away: it costs nothing. ``blame`` is for :meth:`charge`."""
        self.blame = (blame, started)
        return Outcome("away", (error.scope, error.dependency, error.reason, "run"), started, time.time())

    def count_as_failure(self) -> None:
        """Makes it a failure like any other: others find answering what this job calls away."""
        assert self.blame is not None
        blame, started = self.blame
        text = blame if isinstance(blame, str) else "".join(traceback.format_exception(blame))
        self.outcome = self.failure(f"{text.rstrip()} (other jobs find it answering)", started)

    def stopped(self, started: float) -> Outcome:
        """The outcome of a job that was told to stop: filed among the dead, its attempts kept, as RQ has it."""
        text = "rqjobs.errors.PermanentFailure: stopped by command"
        return self._dead("stop", text, started, time.time())

    def outcome_refused(self, why: str) -> None:
        """Replaces an outcome that Redis refused: the job ran, and is not to run again because of a broken key."""
        assert self.outcome is not None
        before = self.outcome
        text = f"rqjobs.errors.PermanentFailure: it ran, but Redis refused its outcome ({before.how}): {why}"
        self.outcome = self._dead("bury", text, before.started, before.ended)

    def failure(
        self, text: str, started: float, *, permanent: bool = False, after: float | None = None, counts: bool = True
    ) -> Outcome:
        """The outcome of a failed run.

        Args:
            text: the traceback, for the job's history.
            started: when the run began, ``time.time()``.
            permanent: no other attempt, whatever is left.
            after: seconds to wait, instead of the job's own waits.
            counts: whether the run uses up an attempt.
        """
        ended, left = time.time(), self.retries_left
        if permanent or (counts and left <= 0):
            return self._dead("dead", text, started, ended, left=0 if permanent and left else "")
        wait = after
        if wait is None:  # RQ aligns the list at its end
            wait = self.intervals[max(len(self.intervals) - left, 0)] if self.intervals else 0
        words = (_error(_kept(text)), wait, left - 1 if counts else "", self.number)
        return Outcome("retry", words, started, ended)

    def _dead(self, how: str, text: str, started: float, ended: float, *, left: int | str = "") -> Outcome:
        kept = _kept(text)
        reason = reason_of(kept.decode())
        noted = entry(cause_of(self.policy.name, reason, decode_data(self.data)), reason)
        ttl = "" if how == "bury" else self.failure_ttl  # it may be what was refused
        return Outcome(how, (_error(kept), ttl, left, self.number), started, ended, noted)


def _kept(text: str) -> bytes:
    return text[-ERROR_LIMIT:].encode(errors="replace")


def _error(kept: bytes) -> bytes:
    return b64encode(zlib.compress(kept))


@lru_cache(1000)
def _read_intervals(text: bytes) -> tuple[float, ...]:
    if len(text) > MAX_INTERVALS_BYTES:
        raise ValueError(f"retry_intervals has {len(text)} bytes")
    waits = tuple(float(wait) for wait in json.loads(text))
    if not all(0 <= wait < float("inf") for wait in waits):
        raise ValueError(f"retry_intervals: {text[:100]!r}")
    return waits


@lru_cache(1000)
def _duration(seconds: float) -> timedelta:
    return timedelta(seconds=seconds) if seconds > 0 else timedelta(days=3650)


def _when(stamp: bytes) -> datetime:
    try:
        return datetime.fromisoformat(stamp.decode())
    except ValueError:
        return datetime.now(UTC)
