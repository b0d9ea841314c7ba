"""The protocol between the worker and its Lua scripts: encodes the arguments and decodes the response of each script.

The head of each script in ``rqjobs/broker/lua/`` lists the same arguments in the same order.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple
from typing import Protocol as Structure

from rq import Queue
from rq.defaults import RQ_KEY_PREFIX

from rqjobs.attempt import JOB_ID
from rqjobs.broker import keys
from rqjobs.broker.rq_schema import LARGEST_DATA, both_formats, timestamp
from rqjobs.config.durations import Rate
from rqjobs.config.logs import event
from rqjobs.config.settings import Settings
from rqjobs.policies import QueuePolicy, base_queue, get_policy, lanes_in_order
from rqjobs.worker.claimed_job import MAX_DEATHS, RESULT_TTL, ClaimedJob
from rqjobs.worker.outcomes import Dead, Done, Held, Outcome, Retry, Unavailable

Word = Any  # an argument of a command: str, bytes, int or float, which hiredis packs

MAX_INTERVALS_BYTES = 100_000
"""The most bytes of a job's ``retry_intervals`` that are read, so that a forged field does not block the loop."""

MAX_MOVED = 1000
"""The most delayed jobs of a lane that one call moves: about 10 ms of Redis' time."""

RUNNING_TTL = 24 * 3600
"""Seconds that Redis keeps the list of a worker's running jobs that have lost a worker before."""


@dataclass(slots=True)
class Claims:
    """The response of reserve.lua."""

    jobs: list[ClaimedJob]
    rate_wait: float
    """Seconds until a rate limit admits another job; negative if no job waits for one."""
    trial_wait: float
    """Seconds until the next trial of a held queue; negative if no queue is held."""
    parked: bool
    """Whether deliveries were parked instead of claimed."""
    full: bool
    """Whether the response has reached the limit of its size, so that more jobs may wait in any lane."""


@dataclass(slots=True)
class Written:
    """The response of finish.lua: positions in the batch, from 0."""

    lost: Collection[int]
    """Jobs whose lease was lost; nothing was written."""
    with_dependents: Collection[int]
    """Jobs that the RQ compatibility path must write; nothing was written."""
    refused: dict[int, str]
    """The errors with which Redis refused to write jobs."""
    own_failures: Collection[int]
    """Jobs with the outcome Unavailable although other jobs reach the dependency; nothing was written."""
    hold_changes: Sequence[Any]
    """The changes of holds, for :func:`rqjobs.broker.holds.log_changes`."""
    group_freed: bool
    """Whether a group with waiting jobs has a free slot again."""


class Moved(NamedTuple):
    """The response of schedule.lua."""

    next_due: float
    """Seconds until the next job is due; negative if none is delayed."""
    moved: int
    limited: list[tuple[str, str]]
    """Lane and id of the due jobs with RQ's own rate limit, for RQ's own methods."""


class Renewed(NamedTuple):
    """The response of renew.lua."""

    registered: bool
    """Whether the worker's record exists."""
    redis_time: float
    lost: list[str]
    """The executions whose lease was lost."""


class Rescued(NamedTuple):
    """The response of recover.lua."""

    rq_compat: list[tuple[str, str, str]]
    """Lane, job id and execution of the jobs that the RQ compatibility path rescues."""
    wrong_types: set[str]
    """Keys that have the wrong type."""
    jobs: list[tuple[str, str, str]]
    """Id, dead worker and new status of each rescued job."""


class HasOutcome(Structure):
    """An object with the outcome of a job, such as a claimed job or an acknowledged outcome."""

    @property
    def job_id(self) -> str:
        """The job's id."""

    @property
    def execution(self) -> str:
        """The id of its claim."""

    @property
    def lane(self) -> str:
        """The lane from which it was claimed."""

    @property
    def outcome(self) -> Outcome | None:
        """Its outcome."""


class WorkerProtocol:
    """The scripts of the worker loop, for one worker and its queues."""

    def __init__(
        self,
        worker: str,
        record_ttl: int,
        policies: Mapping[str, QueuePolicy],
        settings: Settings,
        report: Callable[..., None],
    ) -> None:
        """Prepares the arguments that are the same in each call.

        Args:
            worker: the worker's name.
            record_ttl: seconds that Redis keeps the record of a worker without a heartbeat.
            policies: the queues.
            settings: the settings with the lease and the numbers of kept jobs.
            report: stores the progress of a job, given its id and a mapping.
        """
        self.lanes = lanes_in_order(list(policies))
        self.lease = max(1, round(settings.rqjobs_lease.total_seconds()))
        self._worker = worker
        self._record_ttl = record_ttl
        self._report = report
        queues = [base_queue(lane) for lane in self.lanes]
        self._lane_policies = [(lane, policies[name]) for lane, name in zip(self.lanes, queues, strict=True)]
        self._lane_numbers = {name: str(number) for number, name in enumerate(self.lanes, 1)}
        order = list(policies)
        self._queue_limits: dict[str, tuple[Word, ...]] = {}
        for name, policy in policies.items():
            groups = ("" if policy.group_concurrency is None else policy.group_concurrency, *_limit(policy.group_rate))
            flags = "r" * bool(policy.batch) + "p" * bool(policy.admit)
            self._queue_limits[name] = (*_limit(policy.rate), flags, *groups, policy.group_slot)
        self._lane_words: list[Word] = []
        for lane, name in zip(self.lanes, queues, strict=True):
            self._lane_words += (lane, order.index(name) + 1)
        self._finish_words: list[Word] = [settings.rqjobs_keep_completed, settings.rqjobs_keep_failed, len(self.lanes)]
        for lane, policy in self._lane_policies:
            self._finish_words += (lane, policy.name, policy.group_slot)

    def reserve(self, counts: Mapping[str, int], *, records: bool, parks: bool) -> list[Word]:
        """Encodes a claim of up to ``counts`` jobs by queue.

        Args:
            counts: the number of jobs by queue.
            records: write RQ's records of the executions.
            parks: without ``records``: park webhooks to destinations with an open breaker.
        """
        values: list[Word] = [RQ_KEY_PREFIX, keys.PREFIX, self._worker, self.lease, timestamp(), os.urandom(12).hex()]
        values += ("1" if records else "park" if parks else "", MAX_DEATHS, len(self._queue_limits))
        for name, limits in self._queue_limits.items():
            values += (name, counts.get(name, 0), *limits)
        return values + self._lane_words

    def read_claims(self, response: list[Any]) -> Claims:
        """Decodes the response of reserve.lua. A job whose id is not text is logged and skipped."""
        rate_wait, parked, full, trial_wait, *rows = response
        jobs = []
        for row in rows:
            lane, policy = self._lane_policies[row[2] - 1]
            try:
                jobs.append(read_job(row, lane, policy, self._report))
            except UnicodeDecodeError as error:
                event(logging.ERROR, "refused: not a job id", id=repr(row[0][:100]), queue=lane, error=str(error))
        return Claims(jobs, float(rate_wait), float(trial_wait), bool(parked), bool(full))

    def finish(self, batch: Iterable[HasOutcome]) -> list[Word]:
        """Encodes the outcomes of jobs."""
        values = self._finish()
        for job in batch:
            outcome = job.outcome
            assert outcome is not None
            values += (outcome.name, job.job_id, job.execution, self._lane_numbers[job.lane])
            if outcome.started:
                (started, started_at), (ended, ended_at) = both_formats(outcome.started), both_formats(outcome.ended)
                values += (started, ended, started_at, ended_at, *_fields(outcome))
            else:
                values += (0, 0, "", "", *_fields(outcome))
        return values

    def release(self, jobs: Iterable[tuple[str, str, str]]) -> list[Word]:
        """Encodes the release of jobs known only by id, execution and lane; [] if none is of our lanes."""
        values = [
            value
            for job_id, execution, lane in jobs
            if lane in self._lane_numbers
            for value in ("released", job_id, execution, self._lane_numbers[lane], 0, 0, *[""] * 7)
        ]
        return self._finish() + values if values else []

    def _finish(self) -> list[Word]:
        return [RQ_KEY_PREFIX, keys.PREFIX, self._worker, timestamp(), *self._finish_words]

    def schedule(self, lanes: Iterable[str]) -> list[Word]:
        """Encodes a call that moves the due jobs of these lanes."""
        return [RQ_KEY_PREFIX, timestamp(), MAX_MOVED, *sorted(lanes)]

    def renew(self, jobs: Iterable[ClaimedJob]) -> list[Word]:
        """Encodes a heartbeat of the worker and the leases of ``jobs``; run_script adds RQ's prefix."""
        values: list[Word] = [self._worker, self._record_ttl, self.lease, timestamp()]
        for job in jobs:
            values += (job.lane, job.job_id, job.execution)
        return values


_is_job_id = JOB_ID.fullmatch


def read_job(row: Sequence[Any], lane: str, policy: QueuePolicy, report: Callable[..., None]) -> ClaimedJob:
    """Decodes one job of reserve.lua's response.

    Raises:
        UnicodeDecodeError: its id is not text.
    """
    (raw_id, execution, _lane, kind, data, timeout, left, intervals, created_at, result_ttl, failure_ttl, enqueued_at,
     *of_few) = row  # fmt: skip
    job_id, rq_compat = raw_id.decode(), kind == b"1"
    fault: str | None = None
    limit, retries_left, kept = 0.0, 0, RESULT_TTL
    waits: tuple[float, ...] = ()
    dead_kept: int | None = None
    try:
        limit = float(timeout) if timeout else policy.timeout.total_seconds()
        retries_left = int(left) if left else 0
        waits = _read_intervals(intervals) if intervals else ()
        kept = int(result_ttl) if result_ttl else RESULT_TTL
        dead_kept = int(failure_ttl) if failure_ttl else None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        fault, rq_compat = f"refused: a field of the job's hash cannot be read: {error}", False
    if kind == b"3":
        fault = f"refused: the job's hash has over {LARGEST_DATA >> 20} MiB"
    elif _is_job_id(job_id) is None:
        fault, rq_compat = "refused: the job's id has other characters than letters, digits, _ and -", False
    return ClaimedJob(
        job_id,
        execution.decode(),
        lane,
        policy,
        report,
        data,
        created_at,
        enqueued_at or created_at,  # before a first run the hash has only one of them
        rq_compat,
        kind == b"2",
        fault,
        limit,
        retries_left,
        waits,
        kept,
        dead_kept,
        *((of_few[0] or None, of_few[1], of_few[2]) if of_few else ()),
    )


@lru_cache(1000)
def _read_intervals(text: bytes) -> tuple[float, ...]:
    if len(text) > MAX_INTERVALS_BYTES:
        raise ValueError(f"retry_intervals has {len(text)} bytes")
    waits = tuple(float(wait) for wait in json.loads(text))
    if not all(0 <= wait < float("inf") for wait in waits):
        raise ValueError(f"retry_intervals: {text[:100]!r}")
    return waits


def _fields(outcome: Outcome) -> tuple[Word, Word, Word, Word, Word]:
    """Returns the last five arguments of an outcome, in the order of finish.lua's head."""
    match outcome:
        case Done():
            return (b64encode(outcome.result.encode()) if outcome.result else "", outcome.ttl, outcome.batch, "", "")
        case Retry():
            return (encode_error(outcome.error), outcome.wait, _number(outcome.retries_left), outcome.attempt, "")
        case Dead():
            ttl, left = _number(outcome.ttl), _number(outcome.retries_left)
            return (encode_error(outcome.error), ttl, left, outcome.attempt, outcome.index_entry)
        case Held():
            return (repr(outcome.wait), "", "", "", "")
        case Unavailable():
            return (outcome.scope, outcome.dependency, outcome.reason, outcome.stage, "")
    return ("", "", "", "", "")


def _limit(rate: Rate | None) -> tuple[str, str]:
    """Returns a rate in the form of the scripts: jobs per second, jobs in a burst."""
    return (f"{rate.per_second:.9f}", f"{max(rate.count, 1):.9f}") if rate else ("", "")


def _number(value: int | None) -> int | str:
    return "" if value is None else value


def encode_error(text: str) -> bytes:
    """Encodes the text of an error as RQ stores it."""
    return b64encode(zlib.compress(text.encode(errors="replace")))


def read_written(response: list[Any]) -> Written:
    """Decodes the response of finish.lua."""
    lost, with_dependents, refused, own_failures, changes, freed = response
    errors = {number: error.decode(errors="replace") for number, error in _pairs(refused)}
    return Written(lost, with_dependents, errors, own_failures, changes, bool(freed))


def read_moved(response: list[Any]) -> Moved:
    """Decodes the response of schedule.lua."""
    next_due, count, limited = response
    found = [(lane.decode(), job_id.decode(errors="replace")) for lane, job_id in _pairs(limited)]
    return Moved(float(next_due), count, found)


def read_renewed(response: list[Any]) -> Renewed:
    """Decodes the response of renew.lua."""
    registered, redis_time, *lost = response
    return Renewed(bool(registered), float(redis_time), [_text(execution) for execution in lost])


def rescue(lanes: Iterable[str], settings: Settings, *, errors: Sequence[str], dead: str, page: int) -> list[Word]:
    """Encodes a call of recover.lua.

    Args:
        lanes: the lanes to search.
        settings: the settings with the number of kept dead jobs.
        errors: three errors: of a job that runs again, of one without attempts left, and of one that has lost too many
            workers.
        dead: the name of a dead worker; "" for all jobs with expired leases.
        page: the most jobs of a lane.
    """
    names = list(lanes)
    values: list[Word] = [keys.PREFIX, timestamp(), settings.rqjobs_keep_failed, MAX_DEATHS]
    values += (*(encode_error(text) for text in errors), dead, page, len(names))
    for lane in names:
        values += (lane, base_queue(lane), get_policy(lane).group_slot)
    return values


def read_rescued(response: list[Any]) -> Rescued:
    """Decodes the response of recover.lua."""
    rq_compat, wrong_types, *jobs = response
    return Rescued(
        [(_text(lane), _text(job_id), _text(execution)) for lane, job_id, execution in rq_compat],
        {_text(name) for name in wrong_types},
        [(_text(job_id), _text(worker), _text(status)) for job_id, worker, status in jobs],
    )


def release_dependents(lanes: Sequence[str], page: int) -> list[Word]:
    """Encodes a call of release.lua, which enqueues at most ``page`` ready dependents of each lane."""
    return [timestamp(), Queue.DEFAULT_TIMEOUT, page, *lanes]


def read_dependents(response: list[Any]) -> tuple[bool, list[tuple[str, str]]]:
    """Decodes the response of release.lua.

    Returns:
        Whether a lane may have more; lane and id of the jobs with RQ's rate limit.
    """
    more, *limited = response
    return more == b"1", [(_text(lane), _text(job_id)) for lane, job_id in _pairs(limited)]


def ended(lane: str, total: str, parent: str, batch: str, job_id: str) -> list[Word]:
    """Encodes a call of ended.lua, which counts a run of a job of ``lane`` under ``total``.

    ``parent`` is the job's id if its dependents may run now, otherwise "". ``batch`` is the batch of job ``job_id``,
    or "".
    """
    words: list[Word] = [
        RQ_KEY_PREFIX,
        keys.PREFIX,
        timestamp(),
        Queue.DEFAULT_TIMEOUT,
        base_queue(lane),
        total,
        parent,
    ]
    return [*words, batch, job_id, get_policy(lane).group_slot]


def trim(registry: str, lane: str, keep: int, now: float) -> list[Word]:
    """Encodes a call of trim.lua, which keeps the newest ``keep`` jobs of a registry."""
    return [registry, lane, keep, keys.PREFIX, now, base_queue(lane)]


def running(jobs: Iterable[ClaimedJob]) -> list[Word]:
    """Encodes the arguments of running.lua."""
    return [" ".join(job.execution for job in jobs), RUNNING_TTL]


def _pairs(values: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(values[::2], values[1::2], strict=True)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
