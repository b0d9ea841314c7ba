"""A job that this worker has claimed."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial

from rqjobs.attempt import Attempt
from rqjobs.broker.attempts import reason_of
from rqjobs.broker.job_signing import NOT_SIGNED, is_signed, signs_jobs
from rqjobs.broker.rq_schema import ENTRY, TooLarge, decode_data, unpack_data
from rqjobs.dead_letters.fingerprint import fingerprint_of
from rqjobs.dead_letters.index import entry
from rqjobs.errors import InvalidJob, PermanentFailure, UnknownQueue
from rqjobs.jobs import JobModel
from rqjobs.jobs.base import read_json
from rqjobs.policies import QueuePolicy, base_queue
from rqjobs.worker.failures import Failure, read_failure
from rqjobs.worker.outcomes import Dead, Done, Forced, Outcome, Retry, Stopped, Unavailable

RESULT_TTL = 24 * 3600
"""Seconds that a done job is kept, within the last 100 of its queue."""

MAX_DEATHS = 3
"""The number of workers that die while they run a job after which the job counts as the cause, and is dead."""

UNSERIALIZABLE = "Unserializable return value"
"""Stored instead of a result that is not JSON; RQ's own text."""

MAX_RESULT_BYTES = 64 * 2**20
"""The most bytes of a result as JSON. Redis would refuse a much larger one, and the done job would run again."""

TOO_LARGE = "Return value too large to be kept"
"""Stored instead of a larger result."""

ERROR_LIMIT = 16_000
"""The most characters of a traceback that are kept: its end has the error, and a deep recursion has megabytes."""


class NeedsRQCompat(Exception):
    """The job is not a plain job of rqjobs, so the RQ compatibility path must run it (registered functions only)."""


@dataclass(slots=True, eq=False)
class ClaimedJob:
    """One job from its claim until its outcome is written."""

    job_id: str
    execution: str
    """The id of this claim: a job that is claimed again has another one."""
    lane: str
    policy: QueuePolicy
    report: Callable[..., None]
    """Stores the progress of a job, given its id and a mapping."""
    data: bytes
    """The ``data`` field of its hash, deflated or plain."""
    created_at: bytes
    """The time of its first enqueueing, as RQ writes it."""
    enqueued_at: bytes
    """The time of its last enqueueing, as RQ writes it; a retry has a new one."""
    rq_compat: bool = False
    """Whether it has features of RQ that our scripts do not write."""
    isolated: bool = False
    """Whether it runs in its own process: one more death of a worker that runs it would make it dead."""
    fault: str | None = None
    """Why its hash cannot be read; None if it can. Any client of Redis may have written it."""
    timeout: float = 0.0
    """The time limit in seconds; 0 or less for none."""
    retries_left: int = 0
    intervals: tuple[float, ...] = ()
    """Seconds to wait before each retry."""
    result_ttl: int = RESULT_TTL
    failure_ttl: int | None = None
    """Seconds that it is kept when it is dead; None for RQ's default of a year."""
    trial: bytes | None = None
    """If it is the trial of a held queue: the stage (``run`` or ``admit``) at which the dependency was unavailable."""
    signature: bytes = b""
    """The ``signature`` field of its hash (rqjobs.broker.job_signing); empty if it has none."""
    batch: bytes = b""
    """The batch of which it is a member; empty if none."""
    attempts: int = field(init=False)
    """The most attempts it may have."""
    number: int = field(init=False)
    """The number of this attempt, from 1."""
    failure: tuple[Failure, float] | None = field(default=None, init=False)
    """With the outcome Unavailable: the failure that it would be otherwise, and the start of the run."""
    model: JobModel | None = field(default=None, init=False)
    attempt: Attempt | None = field(default=None, init=False)
    outcome: Outcome | None = field(default=None, init=False)
    _unsettled: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        self.attempts = len(self.intervals) + 1
        self.number = max(1, self.attempts - self.retries_left)
        self._unsettled = [True]

    def settle(self, outcome: Outcome) -> bool:
        """Sets the outcome; returns False if there is one already.

        The first of several threads wins: the one that runs the job, the one that watches its time limit, or the loop,
        which releases the job at a shutdown.
        """
        try:
            self._unsettled.pop()  # atomic
        except IndexError:
            return False
        self.outcome = outcome
        return True

    @property
    def settled(self) -> bool:
        """Whether it has an outcome."""
        return not self._unsettled

    def prepare(self) -> tuple[JobModel, Attempt]:
        """Returns the decoded job model, and the attempt for the processor.

        Raises:
            NeedsRQCompat: the job names another function, or has features of RQ.
            PermanentFailure: the payload is not a job of this queue.
        """
        if self.rq_compat:
            raise NeedsRQCompat
        if self.model is None:
            self.model = self._decode()
        self.attempt = Attempt(
            job_id=self.job_id,
            queue=self.lane,
            number=self.number,
            of=max(self.attempts, self.number),
            enqueued_at=_when(self.created_at),
            timeout=_duration(self.timeout),
            report=partial(self.report, self.job_id),  # a bound method would make a reference cycle
        )
        return self.model, self.attempt

    def _decode(self) -> JobModel:
        if self.fault is not None:
            raise PermanentFailure(self.fault)
        try:
            data = unpack_data(self.data)
            if signs_jobs() and not is_signed(self.signature, self.policy.name, self.job_id, data):
                raise PermanentFailure(NOT_SIGNED)
            function, instance, (queue, payload), options = read_json(data)
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

    def done(self, result: object, started: float) -> Done:
        """Returns the outcome of a processor that returned ``result``."""
        try:
            text = "" if result is None else json.dumps(result)
        except (TypeError, ValueError, RecursionError):
            text = json.dumps(UNSERIALIZABLE)
        if len(text) > MAX_RESULT_BYTES:  # characters are bytes: json.dumps() returns ASCII
            text = json.dumps(TOO_LARGE)
        return Done(text, self.result_ttl, started=started, ended=time.time(), batch=self.batch)

    def raised(self, error: BaseException, started: float) -> Outcome:
        """Returns the outcome of a processor that raised ``error``."""
        return self.failed(read_failure(error, self.policy), started)

    def failed(self, failure: Failure, started: float) -> Outcome:
        """Returns the outcome of a failed run: another attempt, dead, or unavailable."""
        if (away := failure.unavailable) is not None:
            self.failure = (failure, started)
            return Unavailable(away.scope, away.dependency, away.reason, "run", started=started, ended=time.time())
        text, left, ended = failure.error, self.retries_left, time.time()
        if failure.permanent or (failure.counts and left <= 0):
            retries_left = 0 if failure.permanent and left else None
            return self._dead(Dead, text, (started, ended), self.failure_ttl, retries_left)
        wait = failure.wait
        if wait is None:  # as in RQ, the last interval belongs to the last retry
            wait = self.intervals[max(len(self.intervals) - left, 0)] if self.intervals else 0
        retries_left = left - 1 if failure.counts else None
        return Retry(_kept(text), self.number, retries_left, wait, started=started, ended=ended)

    def stopped(self, started: float) -> Outcome:
        """Returns the outcome of a run that a command has stopped: dead, even if it has attempts left."""
        text = "rqjobs.errors.PermanentFailure: stopped by command"
        return self._dead(Stopped, text, (started, time.time()), self.failure_ttl)

    def count_as_failure(self) -> None:
        """Replaces the outcome Unavailable by a failure of the job, because other jobs reach the dependency."""
        assert self.failure is not None
        failure, started = self.failure
        text = f"{failure.error.rstrip()} (other jobs find it answering)"
        self.outcome = self.failed(Failure(text), started)

    def outcome_refused(self, why: str) -> None:
        """Replaces an outcome that Redis has refused, so that a job that has run does not run again."""
        assert self.outcome is not None
        before = self.outcome
        text = f"rqjobs.errors.PermanentFailure: it ran, but Redis refused its outcome ({before.name}): {why}"
        # Without its ttl, which may be the value that Redis refused.
        self.outcome = self._dead(Forced, text, (before.started, before.ended), None)

    def _dead(
        self, kind: type[Dead], text: str, times: tuple[float, float], ttl: int | None, retries_left: int | None = None
    ) -> Dead:
        text = _kept(text)
        reason = reason_of(text)
        payload = None if NOT_SIGNED in reason else decode_data(self.data)
        noted = entry(fingerprint_of(self.policy.name, reason, payload), reason)
        return kind(text, self.number, retries_left, ttl, noted, started=times[0], ended=times[1])


def _kept(text: str) -> str:
    text = text[-ERROR_LIMIT:]
    return text if text.isascii() else text.encode(errors="replace").decode()  # lone surrogates are replaced


@lru_cache(1000)
def _duration(seconds: float) -> timedelta:
    return timedelta(seconds=seconds) if seconds > 0 else timedelta(days=3650)


def _when(stamp: bytes) -> datetime:
    try:
        return datetime.fromisoformat(stamp.decode())
    except ValueError:
        return datetime.now(UTC)
