"""``rqjobs worker``: RQ's worker with an engine of its own - atomic, batched, many jobs at once in one process."""

from __future__ import annotations

import contextlib
import gc
import inspect
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis

from rqjobs.broker import holds, keys
from rqjobs.broker.connection import PASSING, connect
from rqjobs.broker.rq_schema import SERIALIZER, job_key, run_script, timestamp
from rqjobs.broker.scripts import load_script
from rqjobs.config.logs import event
from rqjobs.config.settings import get_settings
from rqjobs.policies import QueuePolicy, get_policy, import_registrations, lanes_in_order, load, policies
from rqjobs.worker import protocol
from rqjobs.worker.acknowledged import AcknowledgedOutcome
from rqjobs.worker.claimed_job import RESULT_TTL, ClaimedJob
from rqjobs.worker.exception_handlers import ExceptionHandler, HandlerThread
from rqjobs.worker.job_log import JobLog
from rqjobs.worker.loop import Limits, WorkerLoop
from rqjobs.worker.maintenance import Maintenance
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
from rqjobs.worker.running_jobs import share
from rqjobs.worker.watcher_client import watched

SUPERVISED = "RQJOBS_SUPERVISED"
"""Set by the supervisor: the name that this worker is to have."""

SWITCH = 0.001
"""Seconds that a thread may keep the interpreter from the others (Python's default, 0.005, is felt as latency)."""


class EngineWorker(RQCompatWorker):
    """What the parts of the engine need of each other."""

    time_limits: TimeLimitThread
    metrics: MetricsRecorder
    handlers: HandlerThread
    grace: float = 25.0

    def register_again(self) -> None:
        """Writes its record, which is gone, anew.

        RQ refuses a name whose record is there without a death. To delete the record first is not enough: the loop
        writes its counters into it meanwhile.
        """
        self.connection.hset(self.key, "death", timestamp())
        self.register_birth()

    def settled(self, job: ClaimedJob) -> None:
        """A job has its outcome."""
        self.loop.settled(job)

    def report(self, job_id: str, progress: Mapping[str, object]) -> None:
        """Stores the progress of a running job in its meta, as RQ's ``job.meta``; not while Redis is away."""
        with contextlib.suppress(*PASSING):
            meta = self.connection.hget(job_key(job_id), "meta")
            merged = {**(json.loads(meta) if meta else {}), "progress": dict(progress)}
            run_script("report", self.connection, [job_id, json.dumps(merged)])

    def end_trial(self, job: ClaimedJob) -> None:
        """The job was the trial of a held queue, and has found its dependency: all go on."""
        holds.end(self.connection, job.policy.name, job.job_id, "done")

    def run_only(self, queue: str, jobs: Sequence[ClaimedJob]) -> None:
        """Lets Redis know: of this queue's jobs that have had a worker die under them only these run now."""
        load_script("running")([keys.running(queue, self.name)], protocol.running(jobs), client=self.connection)

    def failed(self, job: ClaimedJob, error: BaseException) -> None:
        """A run of a job of ours has raised: the exception handlers are called, in a thread of their own."""
        if self._exc_handlers and not job.settled:
            self.handlers.put((self, job.job_id, error))

    def abandon(self, slot: Slot, jobs: list[ClaimedJob]) -> None:
        """A thread does not react to its time limit: its jobs go on without it, another thread takes its place."""
        for job in jobs:
            event(logging.ERROR, "thread given up", id=job.job_id, queue=job.lane, limit=job.timeout)
            if slot.rqs:
                self._end_abandoned(slot, job)
            elif job.settle(raised(job, TimeLimit(), slot.began, self, stopped=slot.stopped)):
                self.settled(job)
        self.loop.queues[jobs[0].policy.name].runner.replace(jobs[0])

    def _end_abandoned(self, slot: Slot, job: ClaimedJob) -> None:
        """RQ's own methods ran this job in a thread that does not come back: another calls its callback and ends it."""
        error = StopRequested() if slot.stopped else rq_time_limit(slot.rq_limit)()
        started = slot.began

        def end(job: ClaimedJob) -> None:
            self.end_abandoned(job, error)

        def run() -> None:
            outcome = run_rq_compat_here(job, self, started, end)
            if job.settle(outcome):
                self.settled(job)

        if slot.ran:  # that was the thread which ended it: whoever sees the lease end decides
            if job.settle(LeftToLease()):
                self.settled(job)
            return
        threading.Thread(target=run, name="rqjobs-end", daemon=True).start()

    def lease_lost(self, job: ClaimedJob) -> None:
        """Another worker has the job now."""
        if self.loop.queues[job.policy.name].runner.lease_lost(job) and job.settle(LeftToLease()):
            self.settled(job)
        event(logging.WARNING, "lease lost", id=job.job_id, queue=job.lane)

    def command(self, command: Mapping[str, Any]) -> None:
        """What RQ's tools ask of a worker: ``shutdown``, ``stop-job``, ``stop-execution``."""
        what, job_id, execution = (str(command.get(word, "")) for word in ("command", "job_id", "execution_id"))
        if what == "shutdown":
            self.loop.stop(self.grace, "shutdown command")
        elif what in ("stop-job", "stop-execution"):
            claimed = list(self.loop.claimed.values())  # RQ's methods take jobs out of it in another thread
            running = [job for job in claimed if job.job_id == job_id and not job.settled]
            found = [job for job in running if execution in ("", job.execution)]
            if not found:
                event(logging.WARNING, "stop-job: it does not run here", id=job_id)
            for job in found:
                event(logging.INFO, "job is stopped by command", id=job_id, queue=job.lane)
                runner = self.loop.queues[job.policy.name].runner
                began = self.time_limits.began(job)
                if not runner.stop_job(job) and job.settle(job.stopped(began)):
                    self.settled(job)


def slots(policies_here: Sequence[QueuePolicy], threads: int | None) -> dict[str, int]:
    """How many jobs of each queue run at once: its policy's concurrency, or its share of ``threads``, one at least."""
    total = sum(policy.concurrency for policy in policies_here if policy.runs_in == "thread")
    return {
        policy.name: policy.concurrency
        if threads is None or policy.runs_in != "thread"
        else max(1, round(threads * policy.concurrency / total))
        for policy in policies_here
    }


def run_worker(
    queues: Sequence[str] | None = None,
    *,
    burst: bool = False,
    threads: int | None = None,
    grace: float = 25.0,
    max_jobs: int | None = None,
    max_rss: int | None = None,
    exception_handlers: Sequence[ExceptionHandler] = (),
    watch: bool = False,
) -> int:
    """Runs jobs of ``queues`` (all by default) until it is told to stop.

    Args:
        queues: names of queues; all their lanes are taken in priority order.
        burst: end when nothing waits and nothing is due.
        threads: how many jobs at once in all, shared out by the queues' concurrency; None takes each queue's own.
        grace: seconds that running jobs get at SIGTERM before they are handed back.
        max_jobs: end after so many jobs.
        max_rss: end when the process has more than so many bytes.
        exception_handlers: called, each with an RQ job and the exception's type, value and traceback, when a run of a
            job has raised; one that returns False keeps those after it from being called.
        watch: have another process end this one when its interpreter is frozen, and take over its jobs when it dies.

    Returns:
        The exit code: 0.

    Raises:
        RedisUnavailable: Redis does not answer at the start. Later outages are waited out.
    """
    sys.setswitchinterval(SWITCH)
    settings = get_settings()
    import_registrations()
    policies_here = [get_policy(name) for name in queues] if queues else list(policies())
    names = [policy.name for policy in policies_here]
    worker = EngineWorker(
        lanes_in_order(names),
        name=os.environ.get(SUPERVISED),
        connection=connect(),
        serializer=SERIALIZER,
        default_result_ttl=RESULT_TTL,
        worker_ttl=WORKER_TTL,
        exception_handlers=list(exception_handlers),
    )
    worker.grace = grace
    memory = share() if watch else None  # before any thread has its place in it
    worker.time_limits, worker.metrics, worker.handlers = (
        TimeLimitThread(worker.abandon),
        MetricsRecorder(),
        HandlerThread(),
    )
    worker.slots = slots(policies_here, threads)
    event_loop = EventLoopThread() if any(map(_is_coroutine, policies_here)) else None
    finishers = ThreadPoolExecutor(1, "rqjobs-finisher")

    job_log = JobLog()

    def finish(job: ClaimedJob | AcknowledgedOutcome) -> None:
        finishers.submit(worker.finish, job)

    def settled(job: ClaimedJob) -> None:
        job_log.settled(job)
        worker.metrics.settled(job)

    def stop(why: str) -> None:
        loop.stop(grace, why)

    def enqueue_limited(lane: str, job_id: str) -> None:
        def enqueue() -> None:
            try:
                worker.enqueue_limited(lane, job_id)
            except Exception:
                logging.getLogger("rqjobs").exception("a scheduled job could not be enqueued")
            loop.enqueued(job_id)

        finishers.submit(enqueue)

    loop = worker.loop = WorkerLoop(
        connect=lambda: connect(socket_timeout=15),
        worker=worker.name,
        record_ttl=worker.worker_ttl + 60,  # as RQ's heartbeat has it
        queues=_queue_states(policies_here, worker.slots, worker, event_loop),
        settings=settings,
        limits=Limits(burst, max_jobs),
        finish_by_rq=finish,
        enqueue_by_rq=enqueue_limited,
        on_command=worker.command,
        log_settled=settled,
        report=worker.report,
    )
    maintenance = Maintenance(
        worker,
        loop,
        settings,
        max_rss=max_rss,
        on_limit=stop,
    )
    worker.register_birth()
    with _signals(loop, grace), watched(worker.name, memory, loop.protocol.lease, grace):
        worker.time_limits.start()
        maintenance.start()
        _exclude_from_gc()
        event(logging.INFO, "worker started", name=worker.name, queues=",".join(names), pid=os.getpid())
        loop.run()
    finishers.shutdown(cancel_futures=loop.out_of_time)
    worker.time_limits.stop()
    worker.handlers.close()
    for queue in loop.queues.values():
        queue.close()
    if event_loop is not None:
        event_loop.close()
    with contextlib.suppress(redis.exceptions.RedisError, OSError):
        maintenance.stop()
        worker.register_death()
    loop.wake_up.close()
    worker.connection.close()
    event(logging.INFO, "worker stopped", name=worker.name)
    return 0


def _exclude_from_gc() -> None:
    """What is loaded stays: looking through it again and again would stop all jobs for 50 to 100 ms each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _is_coroutine(policy: QueuePolicy) -> bool:
    return policy.runs_in == "thread" and policy.batch is None and inspect.iscoroutinefunction(load(policy.processor))


def _queue_states(
    policies_here: Sequence[QueuePolicy],
    slots_of: Mapping[str, int],
    worker: EngineWorker,
    event_loop: EventLoopThread | None,
) -> dict[str, QueueState]:
    queues = {}
    for policy in policies_here:
        runner: Runner
        if policy.runs_in == "process":
            runner = ProcessRunner(policy, slots_of[policy.name], worker)
        elif policy.batch is not None:
            runner = BatchRunner(policy, worker)
        else:
            if _is_coroutine(policy):
                assert event_loop is not None
                runner = CoroutineRunner(policy, slots_of[policy.name], worker, event_loop)
            else:
                runner = ThreadRunner(policy, slots_of[policy.name], worker)
            runner = IsolatedRunner(runner, policy, worker)
        admission = Admission(policy, runner, worker) if policy.admit is not None else None
        queues[policy.name] = QueueState(policy, runner, admission)
    return queues


@contextlib.contextmanager
def _signals(loop: WorkerLoop, grace: float) -> Iterator[None]:
    """SIGTERM and SIGINT: stop within the grace period; a second one hands everything back at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: object) -> None:
        again = loop.stopping
        name = signal.Signals(number).name
        loop.stop(0.0 if again else grace, name + (" again: handing jobs back" if again else ""))

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
