"""Jobs in threads: as many threads a queue as it has slots, started when they are first needed."""

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
from rqjobs.worker.runners.base import Engine, Runner, run_in_slot
from rqjobs.worker.runners.time_limits import Slot

QUICK = 0.001
"""Seconds: while the jobs of a queue take less, few threads run them, for switching would cost more than the jobs."""


class ThreadRunner(Runner):
    """A pool of threads that grows up to the queue's slots.

    A thread that finds more work wakes the next one, so each job that blocks sets another thread free at once.
    Where jobs are quick it does not, for switching costs more than they do; :meth:`check_waiting` notices when one is
    not quick.
    """

    def __init__(self, policy: QueuePolicy, slots: int, engine: Engine) -> None:
        super().__init__(slots)
        self._policy = policy
        self._engine = engine
        self._slots = slots
        self._tokens: SimpleQueue[None] = SimpleQueue()
        self._waking = self._closed = False
        self._threads = self._idle = 0
        self._stuck = 0  # threads that were abandoned and have not come back
        self._begun = self._seen = 0
        self._took = 1.0  # seconds a job, lately; both are written by many threads, and need not be exact
        self._lock = threading.Lock()
        self._processor: Callable[[JobModel, Attempt], Any] = traced(load(policy.processor))

    def submit(self, jobs: Sequence[ClaimedJob]) -> None:
        """Accepts jobs."""
        self._jobs.extend(jobs)
        if not self._waking:
            self._wake()

    def check_waiting(self) -> bool:
        """If none was begun since the last time, the jobs are not quick any more: threads wake each other again."""
        if not self._jobs:
            return False
        if self._begun == self._seen:
            self._took = 1.0
            if not self._waking:
                self._wake()
        self._seen = self._begun
        return self._idle > 0 or self._threads < self._slots

    def stop_job(self, job: ClaimedJob) -> bool:
        """Interrupts the thread that runs it."""
        return self._engine.time_limits.interrupt(job)

    def room(self) -> int:
        """As many threads as there are slots may be stuck and replaced; what is stuck beyond them takes slots away."""
        return max(0, self.capacity - max(0, self._stuck - self._slots))

    def close(self) -> None:
        """Ends the idle threads."""
        self._closed = True
        for _thread in range(self._slots):
            self._tokens.put(None)

    def replace(self, job: ClaimedJob) -> None:  # noqa: ARG002  # a thread is as good as another
        """A thread was given up: another may take its place, unless so many are stuck as there are slots."""
        with self._lock:
            self._stuck += 1
            replaced = self._stuck <= self._slots
            self._threads -= replaced
        if replaced:
            self._wake()
            return
        event(logging.ERROR, "too many threads are stuck: a slot is closed", queue=self._policy.name, stuck=self._stuck)
        if self.room() == 0:
            for waiting in self.waiting():  # another worker may have a thread for them
                if waiting.settle(Released()):
                    self._engine.settled(waiting)

    def _came_back(self) -> None:
        """A thread that was given up has ended."""
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
        slot = Slot()
        self._engine.time_limits.watch(slot)
        try:
            self._serve(slot)
        finally:
            self._engine.time_limits.forget(slot)
            if slot.abandoned:
                self._came_back()

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
