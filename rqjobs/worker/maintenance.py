"""The periodic duties of a worker: heartbeats, leases, rescue, scheduler locks, RQ's housekeeping."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

import redis
from rq import Queue
from rq.rate_limit import RateLimitRegistry
from rq.scheduler import RQScheduler
from rq.scripts import ACQUIRE_OR_REFRESH_LOCK_SCRIPT, release_lock
from rq.worker import WorkerStatus
from rq.worker_registration import clean_worker_registry

from rqjobs.batches.records import check_batches
from rqjobs.broker import keys
from rqjobs.broker.connection import PASSING, leave_replica
from rqjobs.broker.rq_schema import SERIALIZER, RegisteredJob, run_script
from rqjobs.broker.unreadable import is_wrong_type
from rqjobs.config.logs import event
from rqjobs.config.settings import Settings
from rqjobs.dead_letters.index import sync
from rqjobs.worker import protocol
from rqjobs.worker.dependents import enqueue_ready
from rqjobs.worker.engine_worker import EngineWorker
from rqjobs.worker.rescue import PAGE, rescue

HOUSEKEEPING_INTERVAL = 600.0
"""Seconds between two runs of RQ's own housekeeping: expired registry entries and records of dead workers."""

FIRST_HOUSEKEEPING = 10.0
"""Seconds from the start of the worker to the first housekeeping, so that waiting jobs begin first."""

HOUSEKEEPING_LOCK = 60
"""Seconds for which one worker's housekeeping locks a lane: short, because two at once do no harm, and a worker that is
killed leaves the lock behind."""


class Maintenance:
    """Runs the duties that are due, once a second.

    It has its own connection, so that a busy loop never delays a heartbeat.
    """

    def __init__(self, worker: EngineWorker, settings: Settings, *, max_rss: int | None) -> None:
        loop = worker.loop
        self._worker = worker
        self._client: redis.Redis = worker.connection
        self._loop = loop
        self._settings = settings
        self._lanes = worker.queue_names()
        self._period = min(5.0, loop.protocol.lease / 3)
        self._max_rss = max_rss
        self._parent = os.getppid()
        self._scheduler = RQScheduler(
            self._lanes, connection=self._client, logging_level=logging.WARNING, serializer=SERIALIZER, name=worker.name
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rqjobs-maintenance", daemon=True)
        self._next = 0.0
        self._housekept_at = time.monotonic() - HOUSEKEEPING_INTERVAL + FIRST_HOUSEKEEPING
        self._renewed_at = 0.0  # by Redis' clock, as leases are: it may be changed, or run on while this machine sleeps
        self._recover_after = 0.0
        self._wrong_types: set[str] = set()

    def start(self) -> None:
        """Runs one round in this thread, so that the locks are held when it returns, then starts its thread."""
        self.tick()
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread and releases the scheduler's locks."""
        self._stopping.set()
        self._thread.join(2)
        self._worker.metrics.flush(self._client)
        for lane in self._loop.leading:
            release_lock(self._client, RQScheduler.get_locking_key(lane), self._worker.name)
        self._scheduler.register_death()

    def _run(self) -> None:
        while not self._stopping.wait(min(1.0, self._period)):
            self.tick()

    def tick(self) -> None:
        """Runs all duties that are due. A duty that fails does not prevent the others."""
        now = time.monotonic()
        steps: list[Callable[[], None]] = [self._check_limits]
        if now >= self._next:
            steps += [self._renew, self._lead, self._recover, self._enqueue_ready]
        steps += [self._write_state, self._flush_metrics, self._check_hooks]
        if now - self._housekept_at > HOUSEKEEPING_INTERVAL:
            steps.append(self._housekeep)
        for step in steps:
            try:
                step()
            except PASSING as error:
                logging.getLogger("rqjobs").debug("a maintenance step failed", exc_info=True)
                leave_replica(self._client, error)
                if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError):
                    return  # Redis does not answer: the other steps would fail as well
            except Exception:  # no error of a step may end the thread
                logging.getLogger("rqjobs").exception("a maintenance step failed")

    def _check_limits(self) -> None:
        if os.getppid() != self._parent and os.environ.get("RQJOBS_SUPERVISED"):
            self._stop("the supervisor is gone")
        if self._max_rss is not None and (size := _rss()) > self._max_rss:
            self._max_rss = None
            self._stop(f"its memory of {size >> 20} MiB is over --max-rss")

    def _stop(self, why: str) -> None:
        self._loop.stop(self._worker.grace, why)

    def _write_state(self) -> None:
        state = WorkerStatus.BUSY if self._loop.claimed else WorkerStatus.IDLE
        if self._worker.get_state() != state:
            self._worker.set_state(state)

    def _check_hooks(self) -> None:
        self._worker.hooks.check()

    def _flush_metrics(self) -> None:
        self._worker.metrics.flush(self._client)

    def _renew(self) -> None:
        """Renews the worker's record and the leases of its jobs."""
        began = time.monotonic()
        jobs = list(self._loop.claimed.values())
        lost: set[str] = set()
        for start in range(0, max(len(jobs), 1), PAGE):
            words = self._loop.protocol.renew(jobs[start : start + PAGE])
            renewed = protocol.read_renewed(run_script("renew", self._client, words))
            lost.update(renewed.lost)
        if not renewed.registered:  # its record expired while Redis did not answer
            self._worker.register_again()
        now = renewed.redis_time
        since = now - (self._renewed_at or now)
        self._renewed_at, self._next = now, began + self._period
        if since > self._loop.protocol.lease:
            event(logging.WARNING, "leases were not renewed in time", seconds=since)
        if since > 2 * self._period + 1:  # other workers may not have renewed theirs either
            self._recover_after = time.monotonic() + self._period + 1
        for job in jobs:
            if job.execution in lost and job.execution in self._loop.claimed and not job.settled:
                self._worker.lease_lost(job)

    def _lead(self) -> None:
        """Acquires or renews RQ's scheduler locks: only one worker moves the delayed jobs of a lane."""
        script = self._client.register_script(ACQUIRE_OR_REFRESH_LOCK_SCRIPT)
        ttl = max(2, round(3 * self._period))
        with self._client.pipeline(transaction=False) as pipeline:
            for lane in self._lanes:
                script(keys=[RQScheduler.get_locking_key(lane)], args=[self._worker.name, ttl], client=pipeline)
            answers = pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not is_wrong_type(answer):
                raise answer
        leads = [not isinstance(answer, Exception) and bool(answer) for answer in answers]  # a broken lock: no
        leading = frozenset(lane for lane, mine in zip(self._lanes, leads, strict=True) if mine)
        if leading != self._loop.leading:
            self._loop.leading = leading
            self._loop.wake_up.set()
        if leading:
            self._scheduler.register_birth()

    def _recover(self) -> None:
        """Rescues jobs with expired leases, unless Redis was unreachable or its clock changed just before."""
        if time.monotonic() < self._recover_after:
            return
        rq_compat, wrong = rescue(self._client, self._lanes, self._settings, on_death=self._died)
        for job in rq_compat:
            try:
                self._worker.recover_rq_compat(*job)
            except PASSING:
                raise
            except Exception:
                logging.getLogger("rqjobs").exception("a dead worker's job could not be rescued")
        for what in wrong - self._wrong_types:
            follows = "no queue counts as paused" if what == keys.PAUSED else "its queue stands still"
            event(logging.ERROR, f"a key is of another type: {follows}", key=what)
        self._wrong_types = wrong

    def _died(self, job_id: str) -> None:
        self._worker.hooks.rescued(job_id, self._client)

    def _enqueue_ready(self) -> None:
        """Enqueues ready dependents that a worker has left when it was killed between RQ's two steps."""
        enqueue_ready(self._client, self._lanes)

    def _housekeep(self) -> None:
        self._housekept_at = time.monotonic()
        for lane in self._lanes:
            queue = Queue(lane, connection=self._client, serializer=SERIALIZER, job_class=RegisteredJob)
            # RQ's own lock, but for less than RQ's 15 minutes, because a killed worker does not release it.
            if self._client.set(queue.registry_cleaning_key, 1, nx=True, ex=HOUSEKEEPING_LOCK):
                queue.finished_job_registry.cleanup()
                queue.failed_job_registry.cleanup()
                clean_worker_registry(queue)
                queue.intermediate_queue.cleanup(self._worker, queue)
                queue.release_maintenance_lock()
        for limit in RateLimitRegistry.all(self._client):
            limit.cleanup()
        self._worker.clean_group_registries()
        self._client.zremrangebyscore(keys.WAITERS, 0, time.time())
        check_batches(self._client)
        sync(self._lanes, self._client, upkeep=True)


def _rss() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
