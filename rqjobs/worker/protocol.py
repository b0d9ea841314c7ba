"""What the engine's loop tells Redis: the words of its scripts, as each script's head describes them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rq.defaults import RQ_KEY_PREFIX

from rqjobs.broker import keys
from rqjobs.broker.rq_schema import timestamp
from rqjobs.config.settings import Settings
from rqjobs.policies import base_queue, lanes_in_order
from rqjobs.worker.acknowledged import AcknowledgedOutcome
from rqjobs.worker.claimed_job import MAX_DEATHS, ClaimedJob
from rqjobs.worker.queue_state import QueueState
from rqjobs.worker.raw_connection import Word


@dataclass
class Request:
    """What Redis was asked in one go, and what its answers are for."""

    sent: float
    commands: list[Sequence[Word]] = field(default_factory=list)
    handlers: list[Callable[[Any], None]] = field(default_factory=list)
    """What is to be done with the answer to each command. It must not hold the question: a circle of hundreds of jobs
    would wait for Python's collector."""
    batch: list[ClaimedJob] = field(default_factory=list)
    """The jobs whose outcomes it writes."""
    reserved: list[tuple[QueueState, int]] = field(default_factory=list)
    """How many jobs it reserves."""

    def add(self, command: Sequence[Word], handler: Callable[[Any], None]) -> None:
        """Adds a command."""
        self.commands.append(command)
        self.handlers.append(handler)


class ScriptProtocol:
    """The words of one worker for its queues."""

    def __init__(self, worker: str, record_ttl: int, queues: Mapping[str, QueueState], settings: Settings) -> None:
        """``record_ttl``: seconds that Redis keeps the record of a worker that says nothing more."""
        self.lanes = lanes_in_order(list(queues))
        self.lane_queues = [base_queue(lane) for lane in self.lanes]
        self.lease = max(1, round(settings.rqjobs_lease.total_seconds()))
        self._worker = worker
        self._record_ttl = record_ttl
        self._lane_numbers = {name: str(number) for number, name in enumerate(self.lanes, 1)}
        order = list(queues)
        self._queue_limits: dict[str, tuple[str, str, str]] = {}
        for name, queue in queues.items():
            rate = queue.policy.rate
            rate_words = (f"{rate.per_second:.9f}", f"{max(rate.count, 1):.9f}") if rate else ("", "")
            self._queue_limits[name] = (*rate_words, "1" if queue.policy.batch else "")
        self._lane_words: list[Word] = []  # the end of every reservation
        for lane, name in zip(self.lanes, self.lane_queues, strict=True):
            self._lane_words += (lane, order.index(name) + 1)
        self._finish_words: list[Word] = [settings.rqjobs_keep_completed, settings.rqjobs_keep_failed, len(self.lanes)]
        self._finish_words += itertools.chain.from_iterable(zip(self.lanes, self.lane_queues, strict=True))

    def reserve(self, reserved: Iterable[tuple[QueueState, int]], *, records: bool, parks: bool) -> list[Word]:
        """Takes up to so many jobs of each queue.

        With ``records``, RQ's records of their executions are written. Without, and with ``parks``, webhooks to dead
        destinations are parked at once.
        """
        counts = {queue.policy.name: count for queue, count in reserved}
        words: list[Word] = [RQ_KEY_PREFIX, keys.PREFIX, self._worker, self.lease, timestamp(), os.urandom(12).hex()]
        words += ("1" if records else "park" if parks else "", MAX_DEATHS, len(self._queue_limits))
        for name, rules in self._queue_limits.items():
            words += (name, counts.get(name, 0), *rules)
        return words + self._lane_words

    def finish(self, batch: Iterable[ClaimedJob | AcknowledgedOutcome]) -> list[Word]:
        """Writes the outcomes of jobs."""
        words = self._finish()
        for job in batch:
            outcome = job.outcome
            assert outcome is not None
            started, ended = outcome.started, outcome.ended
            words += (outcome.how, job.job_id, job.execution, self._lane_numbers[job.lane], repr(started), repr(ended))
            words += (_moment(started) if started else "", _moment(ended) if started else "", *outcome.words)
            words.append(outcome.entry)
        return words

    def release(self, jobs: Iterable[tuple[str, str, str]]) -> list[Word]:
        """Gives back jobs (id, execution and lane) of which no more is known; none of them if no lane is ours."""
        words = [
            word
            for job_id, execution, lane in jobs
            if lane in self._lane_numbers
            for word in ("back", job_id, execution, self._lane_numbers[lane], 0, 0, *[""] * 7)
        ]
        return self._finish() + words if words else []

    def _finish(self) -> list[Word]:
        return [RQ_KEY_PREFIX, keys.PREFIX, self._worker, timestamp(), *self._finish_words]

    def schedule(self, lanes: Iterable[str]) -> list[Word]:
        """Moves what is due in these lanes."""
        return [RQ_KEY_PREFIX, timestamp(), 1000, *sorted(lanes)]

    def renew(self, jobs: Iterable[ClaimedJob]) -> list[Word]:
        """The worker lives, and runs these jobs. RQ's prefix is left out, for ``run_script`` to add."""
        words: list[Word] = [self._worker, self._record_ttl, self.lease, timestamp()]
        for job in jobs:
            words += (job.lane, job.job_id, job.execution)
        return words


def _moment(seconds: float) -> str:
    return timestamp(round(seconds * 1_000_000))
