"""Runs jobs in batches: passes many jobs at once to a queue's ``batch`` function."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from rqjobs.attempt import Attempt
from rqjobs.jobs import JobModel
from rqjobs.policies import QueuePolicy, load
from rqjobs.worker.claimed_job import ClaimedJob, NeedsRQCompat
from rqjobs.worker.outcomes import Outcome, Released
from rqjobs.worker.runners.base import Engine, Runner, prepare_each, raised, run_rq_compat, watched
from rqjobs.worker.runners.time_limits import Slot

Item = tuple[ClaimedJob, JobModel, Attempt]

_THREADS = 2

_MOST_STUCK = 8
"""The most threads of a queue that may be stuck and replaced."""


class BatchRunner(Runner):
    """Runs the waiting jobs as one batch whenever a thread is free, so batches grow with the load.

    While one batch waits for its database, the next one runs, and a third one collects jobs.

    When a batch kills its worker, or exceeds its time limit, the job that caused it is unknown. So second attempts run
    in small groups and later ones alone, one group at a time, and Redis records which: if the worker dies, no other job
    of it counts an attempt (recover.lua), and only the job that is the cause becomes dead.
    """

    def __init__(self, policy: QueuePolicy, engine: Engine) -> None:
        super().__init__((_THREADS + 1) * policy.batch_size)
        self._policy = policy
        self._engine = engine
        self._filled = threading.Event()
        self._closed = False
        self._lock = threading.Lock()
        self._stuck = 0  # threads that were abandoned and have not returned
        self._cautious = threading.Lock()
        self._group = math.isqrt(policy.batch_size)
        self._function: Callable[[Sequence[tuple[JobModel, Attempt]]], Sequence[Any]] = load(policy.batch or "")
        for _thread in range(_THREADS):
            self._start()

    def _start(self) -> None:
        threading.Thread(target=self._work, name=f"rqjobs-{self._policy.name}", daemon=True).start()

    def submit(self, jobs: Sequence[ClaimedJob]) -> None:
        """Accepts jobs."""
        self._jobs.extend(jobs)
        self._filled.set()

    def stop_job(self, job: ClaimedJob) -> bool:
        """Interrupts a batch that has only this job; a larger one continues, and the caller sets the outcome."""
        return self._engine.time_limits.interrupt(job)

    def close(self) -> None:
        """Ends the threads."""
        self._closed = True
        self._filled.set()

    def replace(self, job: ClaimedJob) -> None:  # noqa: ARG002  # the threads are alike
        """Starts a thread in place of one that was abandoned."""
        self._cautious = threading.Lock()  # the abandoned thread may hold the old one for ever
        with self._lock:
            self._stuck += 1
            replaced = self._stuck <= _MOST_STUCK
        if replaced:
            self._start()

    def room(self) -> int:
        """The number of jobs it may hold now; 0 when every thread is stuck."""
        return self.capacity if self._stuck < _MOST_STUCK + _THREADS else 0

    def _work(self) -> None:
        watched(Slot(self._policy.batch_size), self._engine, self._serve, self._came_back)

    def _came_back(self) -> None:
        with self._lock:
            self._stuck -= 1
            missing = self._stuck >= _MOST_STUCK
        if missing:
            self._start()

    def _serve(self, slot: Slot) -> None:
        while not slot.abandoned and not self._closed:
            self._filled.wait()
            self._filled.clear()
            while self._jobs and not slot.abandoned:
                batch, size = self._gather()
                if size == self._policy.batch_size:
                    self._run(slot, batch)
                elif batch:
                    self._run_cautiously(slot, batch)
        self._filled.set()  # for the other thread, if this one was woken by close()

    def _gather(self) -> tuple[list[ClaimedJob], int]:
        """Returns the next jobs that may run together, and the most jobs for such a batch."""
        batch: list[ClaimedJob] = []
        size = self._policy.batch_size
        while len(batch) < size:
            try:
                job = self._jobs.popleft()
            except IndexError:
                break
            if batch and self._size(job) != size:
                self._jobs.appendleft(job)
                break
            size = self._size(job)
            batch.append(job)
        return batch, size

    def _size(self, job: ClaimedJob) -> int:
        if job.isolated:
            return 1
        if job.number == 1:
            return self._policy.batch_size
        return self._group if job.number == 2 and job.retries_left else 1  # noqa: PLR2004  # the second attempt

    def _run_cautiously(self, slot: Slot, batch: list[ClaimedJob]) -> None:
        with self._cautious:
            try:
                self._engine.run_only(self._policy.name, batch)
            except redis.RedisError:
                for job in batch:
                    self._settle(slot, job, Released())
                return
            self._run(slot, batch)

    def _run(self, slot: Slot, batch: list[ClaimedJob]) -> None:
        started = time.time()

        def run_elsewhere(job: ClaimedJob, error: Exception) -> None:
            if isinstance(error, NeedsRQCompat):
                outcome = run_rq_compat(slot, job, self._engine, started)
            else:
                outcome = raised(job, error, started, self._engine)
            self._settle(slot, job, outcome)

        slot.place.begin(batch)  # to decode a payload calls the code of its model
        items = prepare_each([job for job in batch if not job.settled], run_elsewhere)  # stopped before it began
        if items:
            self._run_items(slot, items)
        slot.place.end()

    def _run_items(self, slot: Slot, items: list[Item]) -> None:
        started = time.time()
        jobs = [job for job, _model, _attempt in items]
        limit = min((job.timeout for job in jobs if job.timeout > 0), default=0.0)
        try:
            try:
                slot.enter(jobs, limit)
                if self._engine.wants_starts:
                    self._engine.started(jobs)
                results = list(self._function([(model, attempt) for _job, model, attempt in items]))
            finally:
                slot.leave()
            if len(results) != len(jobs):
                raise ValueError(f"{self._policy.batch} answered {len(results)} results for {len(jobs)} jobs")  # noqa: TRY301
        except BaseException as error:  # noqa: BLE001  # the batch's failure is each item's
            outcomes = [raised(job, error, started, self._engine, stopped=slot.stopped) for job in jobs]
        else:
            outcomes = [
                raised(job, result, started, self._engine)
                if isinstance(result, BaseException)
                else job.done(result, started)
                for job, result in zip(jobs, results, strict=True)
            ]
        for job, outcome in zip(jobs, outcomes, strict=True):
            self._settle(slot, job, outcome)

    def _settle(self, slot: Slot, job: ClaimedJob, outcome: Outcome) -> None:
        if not slot.abandoned and job.settle(outcome):
            self._engine.settled(job)
