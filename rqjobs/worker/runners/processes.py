"""Runs jobs in child processes, which are killed at the time limit and return their memory to the system."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Any

from rqjobs.config.logs import event
from rqjobs.errors import JobTimeout
from rqjobs.policies import QueuePolicy
from rqjobs.worker.claimed_job import ClaimedJob, NeedsRQCompat
from rqjobs.worker.failures import Failure
from rqjobs.worker.outcomes import Outcome
from rqjobs.worker.runners.base import Engine, Runner, failed, raised, run_rq_compat_here
from rqjobs.worker.runners.time_limits import TimeLimitExceeded
from rqjobs.worker.running_jobs import free_place, place

IDLE = 60.0
"""Seconds that an idle process is kept: starting one takes about half a second."""


START = 60.0
"""Seconds within which a process must be ready for its first job."""


PATIENCE = 5.0
"""Seconds that a stopped job has for its cleanup."""


class ChildDied(Exception):
    """The process ended while it ran a job."""


class RaisedInProcess(Exception):
    """An exception that a job raised in its process, with the text of the traceback; for exception handlers."""


class Child:
    """A process that runs one job at a time, with a socket to it: one JSON object per line."""

    def __init__(self, queue: str) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        self._buffer = b""
        self.ready = False
        """Whether it has begun its first job."""
        self.stopped = False
        """Whether a command has stopped its job."""
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "rqjobs.worker.runners.child_process", str(theirs.fileno()), queue],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # only the worker gets Ctrl-C, and decides
            )

    def wait_until_ready(self, job: ClaimedJob) -> None:
        """Waits for the start of the process, which does not count as time of ``job``.

        Raises:
            JobTimeout: it takes too long. The process is killed.
            ChildDied: the process ended.
        """
        if not self.ready:
            try:
                self._read(job, time.monotonic() + START)
            except JobTimeout:
                raise
            except OSError as error:
                raise ChildDied(str(error)) from None
            self.ready = True

    def run(self, job: ClaimedJob) -> dict[str, Any]:
        """Runs ``job`` in the process, which is ready, and returns the message with its outcome.

        Raises:
            JobTimeout: the time limit is over. The process is killed.
            ChildDied: the process ended.
        """
        model, attempt = job.prepare()
        message = {
            "payload": model.dump(),
            "job_id": job.job_id,
            "lane": job.lane,
            "number": attempt.number,
            "of": attempt.of,
            "enqueued_at": attempt.enqueued_at.isoformat(),
            "timeout": attempt.timeout.total_seconds(),
        }
        try:
            deadline = time.monotonic() + job.timeout if job.timeout > 0 else float("inf")
            self._socket.sendall(json.dumps(message).encode() + b"\n")
            while True:
                answer = self._read(job, deadline)
                if "report" not in answer:
                    return answer
                attempt.report(answer["report"])
        except JobTimeout:
            raise
        except OSError as error:
            raise ChildDied(str(error)) from None

    def _read(self, job: ClaimedJob, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = min(deadline - time.monotonic(), 3600.0)
            if left <= 0:
                self.kill()
                raise TimeLimitExceeded(timedelta(seconds=job.timeout))
            if not select.select([self._socket], [], [], left)[0]:
                continue
            data = self._socket.recv(1 << 16)
            if not data:
                raise ChildDied
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """Kills the process at once, with all its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Stops the job with a signal; kills the process if it does not react."""
        self.stopped = True
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        timer = threading.Timer(PATIENCE, self._end)
        timer.daemon = True
        timer.start()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.kill()

    def close(self) -> int:
        """Ends an idle process, waits for it, and returns its exit code."""
        self._socket.close()
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode


class ProcessRunner(Runner):
    """Runs jobs in one thread and one process per slot.

    A process starts with its first job, and ends after a minute without one.
    """

    def __init__(self, policy: QueuePolicy, slots: int, engine: Engine) -> None:
        super().__init__(slots)
        self._policy = policy
        self._engine = engine
        self._slots = slots
        self._queue: SimpleQueue[ClaimedJob | None] = SimpleQueue()
        self._threads = 0
        self.unfinished = 0
        """The number of its jobs, begun or not."""
        self._lock = threading.Lock()
        self._running: dict[str, Child] = {}
        """The processes by execution: a job may be here twice, once with a lost lease."""
        self._stopping = False
        self._started: list[threading.Thread] = []

    def submit(self, jobs: Sequence[ClaimedJob]) -> None:
        """Accepts jobs."""
        for job in jobs:
            self._queue.put(job)
        self._count(unfinished=len(jobs))

    def _count(self, *, unfinished: int = 0, threads: int = 0) -> None:
        """Starts a thread for each unfinished job, up to the slots.

        It does not count waiting jobs, because a thread may have taken a job and not begun it yet.
        """
        with self._lock:
            self.unfinished += unfinished
            self._threads += threads
            while self._threads < min(self._slots, self.unfinished):
                self._threads += 1
                name = f"rqjobs-{self._policy.name}-{self._threads}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                thread.start()
                self._started.append(thread)

    def waiting(self) -> list[ClaimedJob]:
        """Removes and returns the jobs that have not begun."""
        found: list[ClaimedJob] = []
        while True:
            try:
                job = self._queue.get_nowait()
            except Empty:
                self._count(unfinished=-len(found))
                return found
            if job is not None:
                found.append(job)

    def stop(self) -> None:
        """Kills the running jobs."""
        self._stopping = True
        for child in list(self._running.values()):
            child.kill()

    def close(self) -> None:
        """Ends the threads and their processes."""
        for _thread in range(self._threads):
            self._queue.put(None)
        for thread in self._started:
            thread.join(5)

    def lease_lost(self, job: ClaimedJob) -> bool:
        """Kills the process that runs this job, if it has begun."""
        if (child := self._running.get(job.execution)) is not None:
            child.kill()
        return True

    def stop_job(self, job: ClaimedJob) -> bool:
        """Stops this job for good; returns False if it has not begun."""
        child = self._running.get(job.execution)
        if child is not None:
            child.stop()
        return child is not None or self._engine.time_limits.interrupt(job)

    def replace(self, job: ClaimedJob) -> None:  # noqa: ARG002  # a thread is as good as another
        """Allows a new thread in place of an abandoned one."""
        self._count(threads=-1)

    def _work(self) -> None:
        child: Child | None = None
        while True:
            try:
                job = self._queue.get(timeout=IDLE if child is not None else None)
            except Empty:
                if child is not None:
                    child.close()
                    child = None
                continue
            if job is None:
                if child is not None:
                    child.close()
                return
            if child is not None and child.process.poll() is not None:
                child.close()
                child = None
            child = self._run(job, child)
            self._count(unfinished=-1)

    def _run(self, job: ClaimedJob, child: Child | None) -> Child | None:
        started = time.time()
        outcome, keep = None, False
        if job.settled:  # stopped or released before it began
            return child
        mine = place()
        mine.begin((job,), "?")
        try:
            job.prepare()
            # Until the process is ready none of the job's code runs: a worker that dies meanwhile costs it no attempt.
            mine.clear()
            child = child or Child(self._policy.name)
            self._running[job.execution] = child
            if job.outcome is not None or self._stopping:  # set just now, before the child could be found
                child.kill()
            child.wait_until_ready(job)
            mine.begin((job,))
            if self._engine.wants_starts:
                self._engine.started((job,))
            answer = child.run(job)
            outcome, keep = self._ended(job, child, answer, started), answer["keep"] and not child.stopped
        except NeedsRQCompat:
            outcome, keep = run_rq_compat_here(job, self._engine, started), True
        except ChildDied as error:
            outcome = self._died(job, child, error, started)
        except Exception as error:  # noqa: BLE001  # a payload that is refused, a time limit, no memory for a process
            outcome = raised(job, error, started, self._engine)
        finally:
            self._running.pop(job.execution, None)
        if not self._stopping and job.settle(outcome):
            self._engine.settled(job)
        mine.end()
        free_place(mine)
        if child is not None and not keep:
            child.close()
            return None
        return child

    def _ended(self, job: ClaimedJob, child: Child, answer: dict[str, Any], started: float) -> Outcome:
        if "result" in answer:
            return job.done(answer["result"], started)
        if child.stopped:
            return job.stopped(started)
        failure = Failure.from_json(answer["failure"])
        return failed(job, failure, RaisedInProcess(failure.error), started, self._engine)

    def _died(self, job: ClaimedJob, child: Child | None, error: ChildDied, started: float) -> Outcome:
        if child is not None and child.stopped:
            return job.stopped(started)
        self._engine.failed(job, error)
        return self.died(job, child, started)

    def died(self, job: ClaimedJob, child: Child | None, started: float) -> Outcome:
        """Returns the outcome of a job whose process has died: a failed attempt."""
        return job.failed(Failure(death(child)), started)


def death(child: Child | None) -> str:
    """Returns how a process ended, as an error for the job's history."""
    code = child.process.wait() if child is not None else 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = "; the system may have been out of memory" if code == -signal.SIGKILL else ""
    event(logging.ERROR, "job's process died", how=how)
    return f"rqjobs.worker.runners.processes.ChildDied: the job's process {how}{hint}"
