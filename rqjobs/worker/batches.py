"""Jobs in batches: many at once are handed to a queue's ``batch`` function."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rqjobs.attempt import Attempt
from rqjobs.jobs import JobModel
from rqjobs.queues import QueuePolicy, load
from rqjobs.worker.taken import NotOurs, Outcome, Taken
from rqjobs.worker.threads import Engine, Runner, run_special, timed_out
from rqjobs.worker.watchdog import Slot, TimeLimit

Item = tuple[Taken, JobModel, Attempt]

_THREADS = 2


class BatchRunner(Runner):
    """Batches grow with the load and wait for nothing.

    While one waits for its database the next is worked out, and a third gathers.
    """

    def __init__(self, policy: QueuePolicy, engine: Engine) -> None:
        super().__init__((_THREADS + 1) * policy.batch_size)
        self._policy = policy
        self._engine = engine
        self._filled = threading.Event()
        self._closed = False
        self._function: Callable[[Sequence[tuple[JobModel, Attempt]]], Sequence[Any]] = load(policy.batch or "")
        for _thread in range(_THREADS):
            self._start()

    def _start(self) -> None:
        threading.Thread(target=self._work, name=f"rqjobs-{self._policy.name}", daemon=True).start()

    def submit(self, jobs: Sequence[Taken]) -> None:
        """Takes jobs over."""
        self._jobs.extend(jobs)
        self._filled.set()

    def stop_job(self, job: Taken) -> bool:
        """Interrupts a batch of this job alone; a bigger one goes on without it, whose outcome is settled elsewhere."""
        return self._engine.watchdog.interrupt(job)

    def close(self) -> None:
        """Ends the threads."""
        self._closed = True
        self._filled.set()

    def replace(self, job: Taken) -> None:  # noqa: ARG002  # the threads are alike
        """A thread was given up: another takes its place."""
        self._start()

    def _work(self) -> None:
        slot = Slot()
        self._engine.watchdog.watch(slot)
        while not slot.abandoned and not self._closed:
            self._filled.wait()
            self._filled.clear()
            while self._jobs and not slot.abandoned:
                batch: list[Taken] = []
                while len(batch) < self._policy.batch_size:
                    try:
                        batch.append(self._jobs.popleft())
                    except IndexError:
                        break
                self._run(slot, batch)
        self._engine.watchdog.forget(slot)
        self._filled.set()  # for the other thread, if this one took note of close()

    def _run(self, slot: Slot, batch: list[Taken]) -> None:
        started = time.time()
        items: list[Item] = []
        for job in batch:
            if job.settled:  # stopped or handed back before it began
                continue
            try:
                if job.special:
                    raise NotOurs  # noqa: TRY301
                items.append((job, *job.prepare()))
            except NotOurs:
                self._settle(slot, job, run_special(slot, job, self._engine, started))
            except Exception as error:  # noqa: BLE001  # this item's failure, not the batch's
                self._settle(slot, job, job.failed(error, started))
        if items:
            self._run_items(slot, items)

    def _run_items(self, slot: Slot, items: list[Item]) -> None:
        started = time.time()
        jobs = [job for job, _model, _attempt in items]
        limit = min((job.timeout for job in jobs if job.timeout > 0), default=0.0)
        try:
            try:
                slot.enter(jobs, limit)
                results = list(self._function([(model, attempt) for _job, model, attempt in items]))
            finally:
                slot.leave()
            if len(results) != len(jobs):
                raise ValueError(f"{self._policy.batch} answered {len(results)} results for {len(jobs)} jobs")  # noqa: TRY301
        except TimeLimit:
            outcomes = [timed_out(job, started, stopped=slot.stopped) for job in jobs]
        except BaseException as error:  # noqa: BLE001  # the batch's failure is each item's
            outcomes = [job.failed(error, started) for job in jobs]
        else:
            outcomes = [
                job.failed(result, started) if isinstance(result, BaseException) else job.done(result, started)
                for job, result in zip(jobs, results, strict=True)
            ]
        for job, outcome in zip(jobs, outcomes, strict=True):
            self._settle(slot, job, outcome)

    def _settle(self, slot: Slot, job: Taken, outcome: Outcome) -> None:
        if not slot.abandoned and job.settle(outcome):
            self._engine.settled(job)
