"""The RQ compatibility path: RQ's methods run jobs with callbacks, dependents, repeats, rate limits or groups."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from datetime import UTC, datetime
from typing import Any

from rq import Queue
from rq.callbacks import execute_failure_callback
from rq.exceptions import AbandonedJobError, NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.job_lifecycle import format_exc_info
from rq.results import Result
from rq.timeouts import BaseDeathPenalty
from rq.utils import now, utcformat
from rq.worker import BaseWorker

from rqjobs.broker.attempts import KEPT_ATTEMPTS, retried_fields
from rqjobs.broker.connection import PASSING, leave_replica
from rqjobs.broker.rq_schema import SERIALIZER, RegisteredJob, attempt_number, job_key, key, results_key
from rqjobs.config.logs import event
from rqjobs.worker.acknowledged import AcknowledgedOutcome
from rqjobs.worker.claimed_job import MAX_DEATHS, ClaimedJob
from rqjobs.worker.dependents import ReleasingQueue
from rqjobs.worker.loop import WorkerLoop
from rqjobs.worker.outcomes import Dead, Done, Stopped
from rqjobs.worker.protocol import encode_error
from rqjobs.worker.rescue import POISON, TRIED_AGAIN, USED_UP
from rqjobs.worker.rq_worker import StockWorker
from rqjobs.worker.runners.time_limits import StopRequested, slot_here


class _Watched(BaseDeathPenalty):
    """Passes RQ's time limits to the time limit thread, because RQ's signals do not reach threads.

    RQ sets a limit around the job's function, and around each callback.
    """

    def setup_death_penalty(self) -> None:
        """Starts the limit, if one of our threads runs the job."""
        if (slot := slot_here()) is not None:
            slot.enter_call(float(self._timeout))

    def cancel_death_penalty(self) -> None:
        """Ends the limit.

        Raises:
            Abandoned: the limit was exceeded, and another thread writes the job's outcome.
        """
        if (slot := slot_here()) is not None:
            slot.leave_call()


def _still_ours() -> None:
    """Raises Abandoned if another thread writes the outcome of this thread's job."""
    if (slot := slot_here()) is not None:
        slot.leave_call()


class LeaseLost(Exception):
    """The job's lease has expired and another worker runs it, so this run must not be written."""


class _ClaimedRQJob(RegisteredJob):
    """A job for RQ's methods, with its entry in the started registry."""

    member: str = ""


class RQCompatWorker(StockWorker):
    """A worker that RQ and its tools recognise, with methods that can run in many threads at once."""

    death_penalty_class = _Watched
    loop: WorkerLoop
    """Set by the subclass, EngineWorker, when it is constructed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes the arguments of RQ's worker."""
        self._stopping = threading.local()
        super().__init__(*args, **kwargs)

    @property
    def _stopped_job_id(self) -> str | None:
        """The id of the job that RQ's methods treat as stopped; separate for each thread."""
        return getattr(self._stopping, "job_id", None)

    @_stopped_job_id.setter
    def _stopped_job_id(self, job_id: str | None) -> None:
        self._stopping.job_id = job_id

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Calls RQ's base method, without the extra work of RQ's forking worker."""
        BaseWorker.heartbeat(self, timeout, pipeline)

    def wait_for_hooks(self) -> None:
        """Does nothing: the process continues, with the threads of the hooks."""

    def procline(self, message: str) -> None:
        """Does nothing: the process runs many jobs at once, so its title does not change."""

    def run_rq_compat(self, claimed: ClaimedJob) -> None:
        """Runs a job with callbacks, repeats, RQ's rate limit and the like by RQ's own methods.

        Raises:
            LeaseLost: another worker has the job. Nothing was written.
        """
        job, queue, execution = self._load(claimed.lane, claimed.job_id, claimed.execution)
        self.executions[execution.id] = execution
        try:
            self.perform_job(job, queue, execution)
        finally:
            self.executions.pop(execution.id, None)

    def end_abandoned(self, claimed: ClaimedJob, error: BaseException) -> None:
        """Writes the outcome of a job whose thread was abandoned, after its callback, as RQ does.

        Args:
            claimed: the job.
            error: the error raised in that thread: ``StopRequested``, or RQ's time limit.

        Raises:
            LeaseLost: another worker has the job. Nothing was written.
        """
        job, queue, execution = self._load(claimed.lane, claimed.job_id, claimed.execution)
        if job.should_retry and not isinstance(error, StopRequested):
            self._note_retry(job, format_exc_info((type(error), error, None)), execution.id, now())
        self._finalize_failure(job, queue, execution, (type(error), error, None))

    def handle_job_success(self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution) -> None:
        """Calls RQ's method, unless this thread was abandoned while a callback ran."""
        _still_ours()
        super().handle_job_success(job, queue, started_job_registry, execution)

    def handle_job_failure(self, job: Job, *args: Any, **options: Any) -> None:
        """Calls RQ's method, unless this thread was abandoned while a callback ran."""
        _still_ours()
        super().handle_job_failure(job, *args, **options)

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Checks the lease; RQ calls this before it writes the outcome of a run, and before the job's callbacks."""
        assert isinstance(job, _ClaimedRQJob)
        _still_ours()
        self._check_lease(queue.name, job.member)
        super().handle_execution_ended(job, queue, heartbeat_ttl)

    def _finalize_failure(self, job: Job, queue: Queue, execution: Execution, exc_info: Any) -> None:
        if exc_info[0] is not StopRequested:
            super()._finalize_failure(job, queue, execution, exc_info)
            return
        assert isinstance(job, _ClaimedRQJob)
        self._check_lease(queue.name, job.member)
        job.ended_at = now()
        self._stopped_job_id = job.id
        self._handle_stopped_job(job, queue, execution)

    def _load(self, lane: str, job_id: str, execution_id: str) -> tuple[_ClaimedRQJob, Queue, Execution]:
        job = _ClaimedRQJob.fetch(job_id, connection=self.connection, serializer=SERIALIZER)
        assert isinstance(job, _ClaimedRQJob)
        queue = ReleasingQueue(lane, connection=self.connection, serializer=SERIALIZER, job_class=RegisteredJob)
        execution = Execution(execution_id, job_id, self.connection, worker_name=job.worker_name or self.name)
        execution._job = job  # noqa: SLF001  # it would be fetched again
        job.member = execution.composite_key
        return job, queue, execution

    def _check_lease(self, lane: str, member: str) -> None:
        if self.connection.zscore(key("wip", lane), member) is None:
            raise LeaseLost("another worker runs it now")

    def finish(self, claimed: ClaimedJob | AcknowledgedOutcome) -> None:
        """Writes the outcome of a job with dependents; retries until Redis accepts it."""
        outcome = claimed.outcome
        assert isinstance(outcome, Done | Dead)  # the outcomes after which dependents may run
        while True:
            try:
                job, queue, execution = self._load(claimed.lane, claimed.job_id, claimed.execution)
                self._check_lease(claimed.lane, job.member)
                execution.created_at = datetime.fromtimestamp(outcome.started, UTC)
                job.started_at, job.ended_at = execution.created_at, datetime.fromtimestamp(outcome.ended, UTC)
                if isinstance(outcome, Done):
                    job._result = json.loads(outcome.result) if outcome.result else None  # noqa: SLF001
                    job._status = JobStatus.FINISHED  # noqa: SLF001
                    self.handle_job_success(job, queue, queue.started_job_registry, execution)
                else:
                    job.retries_left = 0
                    self._stopped_job_id = job.id if isinstance(outcome, Stopped) else None
                    self.handle_job_failure(job, queue, None, outcome.error, execution)
            except PASSING as error:
                if not self.loop.out_of_time:
                    leave_replica(self.connection, error)
                    time.sleep(1)
                    continue
                event(logging.ERROR, "job left to its lease", id=claimed.job_id, queue=claimed.lane, error=str(error))
                self.loop.leave_to_lease(claimed)
            except LeaseLost:
                event(logging.WARNING, "leases were lost: others run these jobs", ids=claimed.job_id)
                self.loop.leave_to_lease(claimed)
            except Exception:
                logging.getLogger("rqjobs").exception("a job with dependents was left to its lease")
                self.loop.leave_to_lease(claimed)
            else:
                self.loop.finished(claimed)
            return

    def recover_rq_compat(self, lane: str, job_id: str, execution_id: str) -> None:
        """Rescues a dead worker's job by RQ's own methods, for its callbacks, dependents, slots and repeats."""
        try:
            job, queue, execution = self._load(lane, job_id, execution_id)
        except NoSuchJobError:
            self.connection.zrem(key("wip", lane), f"{job_id}:{execution_id}")
            return
        except (ValueError, TypeError) as error:  # a field of its hash is invalid
            self._kill_unreadable(lane, job_id, execution_id, str(error))
            return
        died = self.connection.hincrby(job.key, "worker_died", 1)
        why = USED_UP
        if died >= MAX_DEATHS:
            why, job.retries_left = POISON, 0
        job.ended_at = now()
        with contextlib.suppress(Exception):  # RQ has logged it
            execute_failure_callback(job, self.death_penalty_class, AbandonedJobError, AbandonedJobError(why), None)
        if job.should_retry:
            why = TRIED_AGAIN
            self._note_retry(job, why, execution_id, job.ended_at)
        self.handle_job_failure(job, queue, None, why, execution)

    def _note_retry(self, job: Job, why: str, execution_id: str, ended: datetime) -> None:
        """Adds a failed run to the job's history, because RQ does not record runs that it retries."""
        fields = retried_fields(
            why,
            attempt=attempt_number(job),
            worker=job.worker_name or "",
            execution_id=execution_id,
            started=(job.started_at or ended).timestamp(),
            ended=ended.timestamp(),
        )
        self.connection.xadd(results_key(job.id), fields, maxlen=KEPT_ATTEMPTS)

    def _kill_unreadable(self, lane: str, job_id: str, execution_id: str, why: str) -> None:
        text = f"rqjobs.errors.PermanentFailure: refused: a field of the job's hash cannot be read: {why}"
        with self.connection.pipeline() as pipeline:
            pipeline.hset(job_key(job_id), mapping={"status": "failed", "ended_at": utcformat(now())})
            fields = {"type": Result.Type.FAILED.value, "exc_string": encode_error(text).decode()}
            pipeline.xadd(results_key(job_id), fields)  # type: ignore[arg-type]
            pipeline.zadd(key("failed", lane), {job_id: time.time() + 365 * 86400})
            pipeline.zrem(key("wip", lane), f"{job_id}:{execution_id}")
            pipeline.execute()

    def enqueue_limited(self, lane: str, job_id: str) -> None:
        """Enqueues a due job with RQ's own rate limit, for which it may have to wait for a slot."""
        queue = Queue(lane, connection=self.connection, serializer=SERIALIZER, job_class=RegisteredJob)
        with self.connection.pipeline() as pipeline:
            queue.scheduled_job_registry.remove(job_id, pipeline=pipeline)
            try:
                job = RegisteredJob.fetch(job_id, connection=self.connection, serializer=SERIALIZER)
            except NoSuchJobError:
                pass
            except (ValueError, TypeError):  # it cannot be read; the worker that claims it reports that
                pipeline.rpush(queue.key, job_id)
            else:
                queue._enqueue_rate_limited_job(job, pipeline=pipeline, at_front=job.should_enqueue_at_front())  # noqa: SLF001
            pipeline.execute()
