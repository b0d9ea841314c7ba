"""Admission: a queue's ``admit`` function checks jobs before they start, and may hold some of them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

import redis

from rqjobs.attempt import Attempt, Hold
from rqjobs.config.logs import event
from rqjobs.errors import DependencyUnavailable
from rqjobs.jobs import JobModel
from rqjobs.policies import QueuePolicy, load
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.failures import Failure
from rqjobs.worker.outcomes import Held, Unavailable
from rqjobs.worker.runners.base import Engine, Runner, prepare_each
from rqjobs.worker.running_jobs import place

Asked = tuple[ClaimedJob, JobModel, Attempt]
Verdict = Hold | DependencyUnavailable | None

RECORDED = 200
"""The most jobs that are checked at once: as many as one request claims from a queue (rqjobs.worker.queue_state)."""

SHORT = 0.05
"""Seconds: a job that is held for less stays in memory, which costs less than writing it to Redis and back."""


class Admission:
    """Calls a queue's ``admit`` in its own thread, so that neither the loop nor a slot waits for it."""

    def __init__(self, policy: QueuePolicy, runner: Runner, engine: Engine) -> None:
        self._policy = policy
        self._runner = runner
        self._engine = engine
        self._jobs: SimpleQueue[list[ClaimedJob] | None] = SimpleQueue()
        self._admit: Callable[[Sequence[tuple[JobModel, Attempt]]], Sequence[Verdict]] = load(policy.admit or "")
        threading.Thread(target=self._work, name=f"rqjobs-{policy.name}-admission", daemon=True).start()

    def submit(self, jobs: list[ClaimedJob]) -> None:
        """Queues jobs for the check, after which they go to the runner or are held."""
        self._jobs.put(jobs)

    def close(self) -> None:
        """Ends the thread."""
        self._jobs.put(None)

    def _work(self) -> None:
        kept: list[tuple[float, Asked]] = []
        mine = place(RECORDED)
        while True:
            try:
                wait = max(0.0, min(due for due, _ in kept) - time.time()) if kept else None
                jobs = self._jobs.get(timeout=wait)
            except Empty:
                jobs = []
            if jobs is None:
                return
            ready: list[ClaimedJob] = []  # the runner gets the same error, and translates it
            now = time.time()
            again = [item for due, item in kept if due <= now]
            kept = [(due, item) for due, item in kept if due > now]
            mine.begin([*jobs, *(item[0] for item in again)][:RECORDED], "?")
            asked: list[Asked] = prepare_each(jobs, lambda job, _error: ready.append(job))  # noqa: B023
            asked += again
            for item, verdict in self._verdicts(asked):
                job = item[0]
                if verdict is None:
                    ready.append(job)
                elif isinstance(verdict, Unavailable):
                    verdict.ended = now
                    self._settle(job, verdict)
                elif (until := verdict.until.timestamp()) - now < SHORT:
                    kept.append((until, item))
                else:  # a duration instead of a time, because Redis' clock may differ from ours
                    self._settle(job, Held(until - now, verdict.reason, ended=now))
            mine.clear()
            if ready:
                self._runner.submit(ready)

    def _settle(self, job: ClaimedJob, outcome: Held | Unavailable) -> None:
        if job.settle(outcome):
            event(logging.DEBUG, "job held", id=job.job_id, queue=job.lane, why=outcome.reason)
            self._engine.settled(job)

    def _verdicts(self, asked: Sequence[Asked]) -> list[tuple[Asked, Hold | Unavailable | None]]:
        if not asked:
            return []
        try:
            answers = list(self._admit([(model, attempt) for _job, model, attempt in asked]))
            verdicts = [_away(each, "held") if isinstance(each, DependencyUnavailable) else each for each in answers]
            found = list(zip(asked, verdicts, strict=True))
        except DependencyUnavailable as error:
            for job, _model, _attempt in asked:
                job.failure = (Failure(error), time.time())
            return [(item, _away(error, "admit")) for item in asked]
        except Exception as error:  # noqa: BLE001  # jobs must not wait for ever because their check failed
            event(logging.ERROR, "admit failed", queue=self._policy.name, error=f"{type(error).__name__}: {error}")
            return [(item, None) for item in asked]
        for job, _model, _attempt in asked:
            if job.trial == b"admit":  # the dependency of ``admit`` answers, even if the job is held
                with contextlib.suppress(redis.exceptions.RedisError):
                    self._engine.end_trial(job)
        return found


def _away(error: DependencyUnavailable, stage: str) -> Unavailable:
    return Unavailable(error.scope, error.dependency, error.reason, stage)
