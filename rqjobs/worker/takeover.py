"""The second part of the watcher: ends a frozen worker, and rescues a dead worker's jobs at once.

``python -m rqjobs.worker.takeover HOW PID NAME MEMORY THREAD``. First it records in Redis which jobs ran in the worker:
only those may be the cause of its death, and count an attempt. If the worker is the first process of a container, this
process ends with it; then the leases expire, and the rescuer finds the record in Redis.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time

import redis
from rq.scheduler import RQScheduler
from rq.scripts import release_lock

from rqjobs.broker import keys
from rqjobs.broker.connection import connect
from rqjobs.broker.rq_schema import key
from rqjobs.config.logs import event, set_up_logs
from rqjobs.config.settings import get_settings
from rqjobs.errors import RedisUnavailable
from rqjobs.policies import import_registrations, lanes_in_order
from rqjobs.worker.hook_threads import HookThreads
from rqjobs.worker.protocol import encode_error
from rqjobs.worker.rescue import rescue
from rqjobs.worker.running_jobs import RunningJob, read_running

FROZEN = "WorkerFrozen: the worker was frozen while it ran this job, which {} the interpreter; it was ended"

KEPT = 24 * 3600
"""Seconds that Redis keeps the record of a dead worker's running jobs; at least until its leases have expired."""

NAMED = 32
"""The most jobs that one log line names."""

AWAY = (RedisUnavailable, redis.exceptions.RedisError, OSError)


def suspects(jobs: list[RunningJob], thread: int) -> list[RunningJob]:
    """Returns the jobs that may have frozen their worker: those of ``thread``, which held the interpreter, if known."""
    running = [job for job in jobs if job.running]
    return [job for job in running if job.thread == thread] or running or jobs


def note(name: str, ran: list[RunningJob], *, frozen: bool) -> list[RunningJob]:
    """Records in Redis which jobs ran in the worker; returns those without a written outcome.

    If several may have frozen it, only one of them is the cause: so none has an attempt counted, and each runs alone
    next time.
    """
    with connect(socket_timeout=3) as client:
        members = client.smembers(key("worker", name, "executions"))
        known = {member.decode(errors="replace").rpartition(":")[2] for member in members}
        # A killed worker costs the jobs that it only checked no attempt: at its start they may be hundreds.
        ran = [job for job in ran if job.execution in known and (frozen or not job.checked)]
        fields: dict[str, str | bytes] = {"executions": " ".join(job.execution for job in ran)}
        if frozen:
            fields["why"] = encode_error(FROZEN.format("holds" if len(ran) == 1 else "may hold"))
            fields["spared"] = "1" if len(ran) > 1 else ""
        record = keys.ran(name)
        with client.pipeline() as pipeline:
            pipeline.delete(record)
            pipeline.hset(record, mapping=fields)
            pipeline.expire(record, KEPT)
            pipeline.execute()
    return ran


def end(pid: int) -> None:
    """Ends the frozen process with SIGABRT, at which it writes the traceback of each thread to stderr, then SIGKILL."""
    for number in (signal.SIGABRT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + 3
        while os.getppid() == pid and time.monotonic() < deadline:
            time.sleep(0.05)
        if os.getppid() != pid:
            return


def take_over(dead: str) -> None:
    """Rescues the jobs of a dead worker, and releases its locks as the scheduler of delayed jobs."""
    try:
        with connect() as client:
            import_registrations()
            lanes = lanes_in_order()
            hooks = HookThreads()
            rescue(client, lanes, get_settings(), dead=dead, on_death=lambda job_id: hooks.rescued(job_id, client))
            for lane in lanes:
                release_lock(client, RQScheduler.get_locking_key(lane), dead)
            hooks.close()
    except AWAY as error:  # the jobs are rescued when their leases expire
        event(logging.WARNING, "a dead worker's jobs wait for their leases", name=dead, error=str(error))


def main() -> None:
    """Handles one frozen or dead worker."""
    how, pid, name, memory, thread = sys.argv[1:]
    set_up_logs()
    ran = read_running(int(memory))
    frozen = how == "frozen"
    if frozen:
        ran = suspects(ran, int(thread))
    try:
        # A frozen worker's suspects are named even if their leases have run out, and others have them by now.
        ran = note(name, ran, frozen=frozen) or (ran if frozen else [])
    except AWAY as error:
        ran = [job for job in ran if job.running]
        event(logging.WARNING, "not known to redis: the jobs that a dead worker ran", name=name, error=str(error))
    labels = ", ".join(job.label for job in ran[:NAMED]) or "none"
    labels += f" and {len(ran) - NAMED} more" if len(ran) > NAMED else ""
    if frozen:
        found = {"culprit" if len(ran) == 1 else "suspects": labels}
        event(logging.ERROR, "worker is frozen: it is ended", name=name, pid=int(pid), **found)
        end(int(pid))
    else:
        event(logging.ERROR, "worker process is gone", name=name, ran=labels)
    take_over(name)


if __name__ == "__main__":
    main()
