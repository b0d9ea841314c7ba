"""Runs jobs as coroutines: one event loop in one thread, with hundreds of jobs at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from rqjobs.attempt import Attempt
from rqjobs.broker.tracing import traced
from rqjobs.jobs import JobModel
from rqjobs.policies import QueuePolicy, load
from rqjobs.worker.claimed_job import ClaimedJob, NeedsRQCompat
from rqjobs.worker.outcomes import Outcome
from rqjobs.worker.runners.base import Engine, Runner, raised, run_rq_compat_here
from rqjobs.worker.runners.time_limits import TimeLimit
from rqjobs.worker.running_jobs import Place, place

_LOOK = 0.05
"""Seconds between two checks of the time limits: a timer for each job would cost 4 us, a thirtieth of a webhook."""


class EventLoopThread:
    """The event loop and its thread, started for the first queue that needs it; uses uvloop if installed."""

    def __init__(self) -> None:
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self._run, name="rqjobs-loop", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        # As asyncio.run() does: cancels the tasks that processors have left running, such as a log writer.
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.loop.close()

    def close(self) -> None:
        """Ends the event loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(15)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class CoroutineRunner(Runner):
    """Runs a queue whose processor is a coroutine function, with at most ``slots`` jobs at once."""

    def __init__(self, policy: QueuePolicy, slots: int, engine: Engine, thread: EventLoopThread) -> None:
        super().__init__(slots)
        self._engine = engine
        self._loop = thread.loop
        self._free = slots
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._places: list[Place] = []
        self._limits: dict[str, float] = {}
        """The time limit of each execution, ``time.monotonic()``."""
        self._late: set[str] = set()
        self._looks = False
        self._scheduled = False
        self._processor: Callable[[JobModel, Attempt], Coroutine[Any, Any, Any]] = traced(load(policy.processor))

    def submit(self, jobs: Sequence[ClaimedJob]) -> None:
        """Accepts jobs."""
        self._jobs.extend(jobs)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._start)

    def stop(self) -> None:
        """Cancels the running jobs."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._tasks.values()])

    def stop_job(self, job: ClaimedJob) -> bool:
        """Cancels the task of the job."""
        if not self._engine.time_limits.interrupt(job):  # on the RQ compatibility path it runs in a thread
            self._loop.call_soon_threadsafe(self._stop_job, job)
        return True

    def replace(self, job: ClaimedJob) -> None:
        """Cancels the task that waits for an abandoned thread, which ran this job by RQ's own methods."""
        self._loop.call_soon_threadsafe(self._cancel, job)

    def _cancel(self, job: ClaimedJob) -> None:
        if (task := self._tasks.get(job.execution)) is not None:
            task.cancel()

    def _stop_job(self, job: ClaimedJob) -> None:
        if job.settle(job.stopped(time.time())):  # here, because the task may not have begun
            self._engine.settled(job)
        self._cancel(job)

    def _start(self) -> None:
        self._scheduled = False
        while self._free > 0:
            try:
                job = self._jobs.popleft()
            except IndexError:
                return
            if job.settled:  # stopped or released before it began
                continue
            self._free -= 1
            self._tasks[job.execution] = task = self._loop.create_task(self._run(job), name=job.execution)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        execution = task.get_name()
        self._tasks.pop(execution, None)
        self._limits.pop(execution, None)
        self._late.discard(execution)
        self._free += 1
        if self._jobs:
            self._start()

    def _limit(self, job: ClaimedJob) -> None:
        """Starts the time limit of the job."""
        self._limits[job.execution] = time.monotonic() + job.timeout
        if not self._looks:
            self._looks = True
            self._loop.call_later(_LOOK, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        for execution in [execution for execution, end in self._limits.items() if end <= now]:
            del self._limits[execution]
            self._late.add(execution)
            self._tasks[execution].cancel()
        self._looks = bool(self._limits)
        if self._looks:
            self._loop.call_later(_LOOK, self._look)

    async def _run(self, job: ClaimedJob) -> None:
        started = time.time()
        mine = self._places.pop() if self._places else place()
        mine.begin((job,))
        try:
            model, attempt = job.prepare()
            if job.timeout > 0:
                self._limit(job)
            if self._engine.wants_starts:
                self._engine.started((job,))
            result = await self._processor(model, attempt)
            outcome: Outcome = job.done(result, started)
        except NeedsRQCompat:
            outcome = await asyncio.to_thread(run_rq_compat_here, job, self._engine, started)
        except BaseException as error:  # noqa: BLE001  # any exception of a processor is its failure
            late = job.execution in self._late and isinstance(error, asyncio.CancelledError)
            outcome = raised(job, TimeLimit() if late else error, started, self._engine)
        if job.settle(outcome):
            self._engine.settled(job)
        mine.end()
        self._places.append(mine)
