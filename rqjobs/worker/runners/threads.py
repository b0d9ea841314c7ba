"""Runs jobs in threads, up to one for each slot of the queue, started when they are first needed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from rqjobs.attempt import Attempt
from rqjobs.broker.tracing import traced
from rqjobs.config.logs import event
from rqjobs.jobs import JobModel
from rqjobs.policies import QueuePolicy, load
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.outcomes import Released
from rqjobs.worker.runners.base import Engine, Runner, run_in_slot, watched
from rqjobs.worker.runners.time_limits import Slot

QUICK = 0.001
"""Seconds: jobs that take less run in few threads, because switching threads would cost more than the jobs."""


class ThreadRunner(Runner):
    """A pool of threads that grows up to the queue's slots.

    A thread that finds more jobs wakes the next one, so that a job that blocks does not delay the others. Where jobs
    are quick it does not, because switching costs more than the jobs; :meth:`check_waiting` notices when that ends.
    """

    def __init__(self, policy: QueuePolicy, slots: int, engine: Engine) -> None:
        super().__init__(slots)
        self._policy = policy
        self._engine = engine
        self._slots = slots
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._waking = self._closed = False
        self._threads = self._idle = 0
        self._stuck = 0  # threads that were abandoned and have not returned
        self._begun = self._seen = 0
        self._took = 1.0  # seconds per job, recently; written by many threads, so not exact
        self._lock = threading.Lock()
        self._processor: Callable[[JobModel, Attempt], Any] = traced(load(policy.processor))

    def submit(self, jobs: Sequence[ClaimedJob]) -> None:
        """Accepts jobs."""
        self._jobs.extend(jobs)
        if not self._waking:
            self._wake()

    def check_waiting(self) -> bool:
        """Makes threads wake each other again if no job has begun since the last call: then jobs are not quick."""
        if not self._jobs:
            return False
        if self._begun == self._seen:
            self._took = 1.0
            if not self._waking:
                self._wake()
        self._seen = self._begun
        return self._idle > 0 or self._threads < self._slots

    def stop_job(self, job: ClaimedJob) -> bool:
        """Interrupts the thread that runs the job."""
        return self._engine.time_limits.interrupt(job)

    def room(self) -> int:
        """The number of jobs it may hold now: stuck threads beyond the number of slots reduce it."""
        return max(0, self.capacity - max(0, self._stuck - self._slots))

    def close(self) -> None:
        """Ends the idle threads."""
        self._closed = True
        for _thread in range(self._slots):
            self._tokens.put(None)

    def replace(self, job: ClaimedJob) -> None:  # noqa: ARG002  # a thread is as good as another
        """Starts a thread in place of an abandoned one, unless as many threads are stuck as there are slots."""
        with self._lock:
            self._stuck += 1
            replaced = self._stuck <= self._slots
            self._threads -= replaced
        if replaced:
            self._wake()
            return
        event(logging.ERROR, "too many threads are stuck: a slot is closed", queue=self._policy.name, stuck=self._stuck)
        if self.room() == 0:
            for waiting in self.waiting():  # released, because another worker may have a thread for them
                if waiting.settle(Released()):
                    self._engine.settled(waiting)

    def _came_back(self) -> None:
        """Records that an abandoned thread has ended."""
        with self._lock:
            self._stuck -= 1
            opened = self._stuck >= self._slots
            self._threads -= opened
        if opened:
            self._wake()

    def _wake(self) -> None:
        self._waking = True
        if self._idle == 0 and self._threads < self._slots:
            with self._lock:
                if self._threads >= self._slots:
                    return
                self._threads += 1
                number = self._threads
            name = f"rqjobs-{self._policy.name}-{number}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        else:
            self._tokens.put(None)

    def _work(self) -> None:
        watched(Slot(), self._engine, self._serve, self._came_back)

    def _serve(self, slot: Slot) -> None:
        self._waking = False
        while not slot.abandoned and not self._closed:
            try:
                job = self._jobs.popleft()
            except IndexError:
                with self._lock:
                    self._idle += 1
                self._tokens.get()
                with self._lock:
                    self._idle -= 1
                self._waking = False
                continue
            self._begun += 1
            if self._took > QUICK and self._jobs and not self._waking:
                self._wake()
            self._run(slot, job)

    def _run(self, slot: Slot, job: ClaimedJob) -> None:
        if job.settled:  # stopped or released before it began
            return
        outcome = run_in_slot(slot, job, self._processor, self._engine)
        self._took += (outcome.ended - outcome.started - self._took) / 10
        if not slot.abandoned and job.settle(outcome):
            self._engine.settled(job)
        slot.place.end()
