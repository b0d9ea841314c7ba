"""The worker that ``rqjobs worker`` runs: an RQ worker with an engine that runs many jobs at once."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import redis

from rqjobs.broker import holds, keys
from rqjobs.broker.connection import PASSING, connect
from rqjobs.broker.rq_schema import SERIALIZER, job_key, run_script, timestamp
from rqjobs.broker.scripts import load_script
from rqjobs.config.logs import event
from rqjobs.config.settings import Settings
from rqjobs.policies import QueuePolicy, lanes_in_order, load
from rqjobs.worker import protocol
from rqjobs.worker.acknowledged import AcknowledgedOutcome
from rqjobs.worker.claimed_job import RESULT_TTL, ClaimedJob
from rqjobs.worker.exception_handlers import ExceptionHandler, HandlerThread
from rqjobs.worker.job_log import JobLog
from rqjobs.worker.loop import Limits, WorkerLoop
from rqjobs.worker.metrics_recorder import MetricsRecorder
from rqjobs.worker.outcomes import LeftToLease
from rqjobs.worker.queue_state import QueueState
from rqjobs.worker.rq_compat import RQCompatWorker
from rqjobs.worker.rq_worker import WORKER_TTL
from rqjobs.worker.runners.admission import Admission
from rqjobs.worker.runners.base import Runner, raised, run_rq_compat_here
from rqjobs.worker.runners.batches import BatchRunner
from rqjobs.worker.runners.coroutines import CoroutineRunner, EventLoopThread
from rqjobs.worker.runners.isolated import IsolatedRunner
from rqjobs.worker.runners.processes import ProcessRunner
from rqjobs.worker.runners.threads import ThreadRunner
from rqjobs.worker.runners.time_limits import Slot, StopRequested, TimeLimit, TimeLimitThread, rq_time_limit


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The options of one worker; :func:`rqjobs.worker.run.run_worker` documents them."""

    name: str | None = None
    burst: bool = False
    threads: int | None = None
    grace: float = 25.0
    max_jobs: int | None = None
    exception_handlers: Sequence[ExceptionHandler] = ()


DEFAULT_OPTIONS = WorkerOptions()


class EngineWorker(RQCompatWorker):
    """A worker that RQ and its tools recognise, with all parts of the engine; complete when it is constructed."""

    def __init__(
        self,
        served: Sequence[QueuePolicy],
        connection: redis.Redis,
        settings: Settings,
        options: WorkerOptions = DEFAULT_OPTIONS,
    ) -> None:
        """Constructs the loop and a runner for each queue of ``served``; nothing is claimed before ``loop.run()``."""
        super().__init__(
            lanes_in_order([policy.name for policy in served]),
            name=options.name,
            connection=connection,
            serializer=SERIALIZER,
            default_result_ttl=RESULT_TTL,
            worker_ttl=WORKER_TTL,
            exception_handlers=list(options.exception_handlers),
        )
        self.grace = options.grace
        self.slots = slots(served, options.threads)
        self.time_limits = TimeLimitThread(self.abandon)
        self.wants_starts = self.hooks.wants("start")
        self.metrics = MetricsRecorder()
        self.handlers = HandlerThread()
        self._job_log = JobLog()
        self._finisher = ThreadPoolExecutor(1, "rqjobs-finisher")
        self._event_loop = EventLoopThread() if any(map(_is_coroutine, served)) else None
        self.loop = WorkerLoop(
            connect=lambda: connect(socket_timeout=15),
            worker=self.name,
            record_ttl=self.worker_ttl + 60,  # as in RQ's heartbeat
            queues=self._queue_states(served),
            settings=settings,
            limits=Limits(options.burst, options.max_jobs),
            finish_by_rq=self._finish_by_rq,
            enqueue_by_rq=self._enqueue_by_rq,
            on_command=self.command,
            log_settled=self._record,
            on_written=self.hooks.ended if self.hooks.any else None,
            report=self.report,
        )

    def _queue_states(self, served: Sequence[QueuePolicy]) -> dict[str, QueueState]:
        states = {}
        for policy in served:
            runner = self._runner(policy)
            admission = Admission(policy, runner, self) if policy.admit is not None else None
            states[policy.name] = QueueState(policy, runner, admission)
        return states

    def _runner(self, policy: QueuePolicy) -> Runner:
        count = self.slots[policy.name]
        if policy.runs_in == "process":
            return ProcessRunner(policy, count, self)
        if policy.batch is not None:
            return BatchRunner(policy, self)
        runner: Runner
        if self._event_loop is not None and _is_coroutine(policy):
            runner = CoroutineRunner(policy, count, self, self._event_loop)
        else:
            runner = ThreadRunner(policy, count, self)
        return IsolatedRunner(runner, policy, self)

    def _finish_by_rq(self, job: ClaimedJob | AcknowledgedOutcome) -> None:
        self._finisher.submit(self.finish, job)

    def _enqueue_by_rq(self, lane: str, job_id: str) -> None:
        self._finisher.submit(self._enqueue_limited, lane, job_id)

    def _enqueue_limited(self, lane: str, job_id: str) -> None:
        try:
            self.enqueue_limited(lane, job_id)
        except Exception:
            logging.getLogger("rqjobs").exception("a delayed job could not be enqueued")
        self.loop.enqueued(job_id)

    def _record(self, job: ClaimedJob) -> None:
        self._job_log.settled(job)
        self.metrics.settled(job)

    def close(self) -> None:
        """Ends its threads; called after the loop has ended."""
        self._finisher.shutdown(cancel_futures=self.loop.out_of_time)
        self.time_limits.stop()
        self.handlers.close()
        self.hooks.close()
        for queue in self.loop.queues.values():
            queue.close()
        if self._event_loop is not None:
            self._event_loop.close()
        self.loop.wake_up.close()

    def register_again(self) -> None:
        """Writes the worker's record again after it has expired.

        RQ refuses a name whose record exists and has no death. Deleting the record first is not enough: the loop may
        write its counters into it in between.
        """
        self.connection.hset(self.key, "death", timestamp())
        self.register_birth()

    def started(self, jobs: Sequence[ClaimedJob]) -> None:
        """Calls the hooks for jobs whose runs begin."""
        for job in jobs:
            self.hooks.started(job)

    def settled(self, job: ClaimedJob) -> None:
        """Passes a job with an outcome to the loop, which writes it."""
        self.loop.settled(job)

    def report(self, job_id: str, progress: Mapping[str, object]) -> None:
        """Stores the progress of a running job in RQ's ``job.meta``; does nothing while Redis does not answer."""
        with contextlib.suppress(*PASSING):
            meta = self.connection.hget(job_key(job_id), "meta")
            merged = {**(json.loads(meta) if meta else {}), "progress": dict(progress)}
            run_script("report", self.connection, [job_id, json.dumps(merged)])

    def end_trial(self, job: ClaimedJob) -> None:
        """Ends the hold of the queue whose trial was ``job``, because the dependency answers."""
        holds.end(self.connection, job.policy.name, job.job_id, "done")

    def run_only(self, queue: str, jobs: Sequence[ClaimedJob]) -> None:
        """Records in Redis that, of the queue's jobs whose workers have died, only ``jobs`` run now (recover.lua)."""
        load_script("running")([keys.running(queue, self.name)], protocol.running(jobs), client=self.connection)

    def failed(self, job: ClaimedJob, error: BaseException) -> None:
        """Passes ``error``, raised by a run, to the thread that calls the exception handlers."""
        if self._exc_handlers and not job.settled:
            self.handlers.put((self, job.job_id, error))

    def abandon(self, slot: Slot, jobs: list[ClaimedJob]) -> None:
        """Replaces a thread that does not react to its time limit, and sets the outcomes of its jobs."""
        for job in jobs:
            event(logging.ERROR, "thread abandoned", id=job.job_id, queue=job.lane, limit=job.timeout)
            if slot.rqs:
                self._end_abandoned(slot, job)
            elif job.settle(raised(job, TimeLimit(), slot.began, self, stopped=slot.stopped)):
                self.settled(job)
        self.loop.queues[jobs[0].policy.name].runner.replace(jobs[0])

    def _end_abandoned(self, slot: Slot, job: ClaimedJob) -> None:
        """Writes the outcome of a job that RQ's own methods ran in an abandoned thread.

        Another thread calls the job's callback.
        """
        error = StopRequested() if slot.stopped else rq_time_limit(slot.rq_limit)()
        started = slot.began

        def end(job: ClaimedJob) -> None:
            self.end_abandoned(job, error)

        def run() -> None:
            outcome = run_rq_compat_here(job, self, started, end)
            if job.settle(outcome):
                self.settled(job)

        if slot.ran:  # it was abandoned while it wrote the outcome: the rescuer decides
            if job.settle(LeftToLease()):
                self.settled(job)
            return
        threading.Thread(target=run, name="rqjobs-end", daemon=True).start()

    def lease_lost(self, job: ClaimedJob) -> None:
        """Ends the job if possible, because another worker has its lease."""
        if self.loop.queues[job.policy.name].runner.lease_lost(job) and job.settle(LeftToLease()):
            self.settled(job)
        event(logging.WARNING, "lease lost", id=job.job_id, queue=job.lane)

    def command(self, command: Mapping[str, Any]) -> None:
        """Runs a command of RQ: ``shutdown``, ``stop-job`` or ``stop-execution``."""
        what, job_id, execution = (str(command.get(word, "")) for word in ("command", "job_id", "execution_id"))
        if what == "shutdown":
            self.loop.stop(self.grace, "shutdown command")
        elif what in ("stop-job", "stop-execution"):
            claimed = list(
                self.loop.claimed.values()
            )  # a copy: another thread removes jobs while RQ's methods run them
            running = [job for job in claimed if job.job_id == job_id and not job.settled]
            found = [job for job in running if execution in ("", job.execution)]
            if not found:
                event(logging.WARNING, "stop-job ignored: the job does not run here", id=job_id)
            for job in found:
                event(logging.INFO, "job is stopped by command", id=job_id, queue=job.lane)
                runner = self.loop.queues[job.policy.name].runner
                began = self.time_limits.began(job)
                if not runner.stop_job(job) and job.settle(job.stopped(began)):
                    self.settled(job)


def slots(served: Sequence[QueuePolicy], threads: int | None) -> dict[str, int]:
    """Returns how many jobs of each queue run at once.

    It is the concurrency of the queue's policy, or its share of ``threads``, at least one.
    """
    total = sum(policy.concurrency for policy in served if policy.runs_in == "thread")
    return {
        policy.name: policy.concurrency
        if threads is None or policy.runs_in != "thread"
        else max(1, round(threads * policy.concurrency / total))
        for policy in served
    }


def _is_coroutine(policy: QueuePolicy) -> bool:
    return policy.runs_in == "thread" and policy.batch is None and inspect.iscoroutinefunction(load(policy.processor))
