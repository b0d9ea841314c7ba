"""All errors of rqjobs, below RQJobsError. Each has its data as attributes, and its message names the fix."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta


class RQJobsError(Exception):
    """The root of every error that rqjobs raises on purpose."""


class InvalidJob(RQJobsError, ValueError):
    """A job that would not survive its queue; nothing has reached Redis.

    Attributes:
        kind: the name of the job model, such as ``WebhookJob``.
        faults: every fault found, each naming its field.
    """

    def __init__(self, kind: str, faults: Sequence[str]) -> None:
        self.kind = kind
        self.faults = tuple(faults)
        super().__init__(f"{kind}: {'; '.join(faults)}")


class InvalidSettings(RQJobsError, ValueError):
    """Settings that cannot be used.

    Attributes:
        faults: every fault found, each with its variable and the fix.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(["the settings have faults:", *(f"  {fault}" for fault in faults)]))


class InvalidSchedule(RQJobsError, ValueError):
    """A schedule that cannot be kept; nothing has reached Redis.

    Attributes:
        name: the schedule.
        faults: every fault found, each naming its argument.
    """

    def __init__(self, name: str, faults: Sequence[str]) -> None:
        self.name = name
        self.faults = tuple(faults)
        super().__init__(f"schedule {name}: {'; '.join(faults)}")


class ScheduleNotFound(RQJobsError, LookupError):
    """There is no schedule of this name.

    Attributes:
        name: the name asked for.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"no schedule {name!r}; see them with: rqjobs schedules list")


class UnknownQueue(RQJobsError, LookupError):
    """No queue of this name is in the policy table.

    Attributes:
        name: the unknown name.
        known: the names that exist.
    """

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(f"unknown queue {name!r}; the queues are {', '.join(known)}")


class RedisUnavailable(RQJobsError, ConnectionError):
    """The Redis at REDIS_URL does not answer, or takes nothing: it is away, starting, full, or a replica.

    There is no fallback: jobs would split between two stores. What was on its way may have arrived. Raised by every
    call that needs Redis. When redis-py's client met the fault it is an instance of that error's class as well.

    Attributes:
        url: the address, its password removed.
        fix: what to do.
    """

    def __init__(self, url: str, reason: str, fix: str = "Start it, or fix REDIS_URL") -> None:
        self.url = url
        self.fix = fix
        super().__init__(f"Redis at {url} cannot be used: {reason.rstrip('.')}. {fix}.")


class DependencyUnavailable(RQJobsError):
    """Raised by a processor: what the job needs is away, and that is not the job's fault.

    The run costs the job no attempt and leaves no trace in its history. Its queue is held: no worker takes jobs of it,
    but for one trial at a time, after 1 s, 2 s, 4 s ... 60 s, until one is done. Then all go on. ``rqjobs health``, the
    dashboard, alerts and metrics name the dependency, since when it is away, and the reason.

    A job that finds a dependency away which other jobs of its queue find answering, five times, is charged: then this
    error is a failure like any other.

    Attributes:
        dependency: a short name, such as ``database``. The same text is the same dependency.
        reason: one line, the error and the fix. It is shown to people, so it must hold no secret.
        scope: which part of the queue needs it, such as one of several accounts; "" (the default) for the whole queue.
            Only jobs that raise it with this scope wait, the others go on.
    """

    def __init__(self, dependency: str, reason: str, *, scope: str = "") -> None:
        self.dependency = _line(dependency, 100)
        self.reason = _line(reason, 300)
        self.scope = _line(scope, 100)
        super().__init__(f"{self.dependency} is away: {self.reason}")


def _line(text: str, longest: int) -> str:
    return " ".join(text.split())[:longest]


class DatabaseUnavailable(DependencyUnavailable, ConnectionError):
    """The database at DATABASE_URL does not answer.

    Attributes:
        url: the address, its password removed.
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        text = f"the database at {url} cannot be used: {reason.rstrip('.')}. Start it, or fix DATABASE_URL."
        super().__init__("database", text)
        self.args = (text,)


class SchemaMismatch(DependencyUnavailable):
    """The tables in the database are not those of this rqjobs.

    Attributes:
        url: the address, its password removed.
        found: the version of the tables; None when they were never made.
        needed: the version that this rqjobs works with.
    """

    def __init__(self, url: str, found: str | None, needed: str) -> None:
        self.url = url
        self.found = found
        self.needed = needed
        if found is None:
            fault, fix = "has no tables of rqjobs yet", "Make them with: rqjobs db init"
        elif found < needed:
            fault, fix = f"has tables of version {found}, and {needed} is needed", "Upgrade them with: rqjobs db init"
        else:
            fault, fix = f"has tables of the newer version {found}", "Upgrade rqjobs here to the one that made them."
        text = f"the database at {url} {fault}. {fix}"
        super().__init__("database", text)
        self.args = (text,)


class DuplicateJob(RQJobsError):
    """A job of this id is already waiting, delayed or running (or, with ``unique=True``, lately done).

    Attributes:
        job_ids: the ids that were not enqueued.
    """

    def __init__(self, job_ids: Sequence[str]) -> None:
        self.job_ids = tuple(job_ids)
        super().__init__(f"already enqueued: {', '.join(job_ids)}. Wait for it, or choose another job_id.")


class JobNotFound(RQJobsError, LookupError):
    """Redis has no job of this id: it was never enqueued here, or it is done and no longer kept.

    Attributes:
        job_id: the unknown id.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"no job {job_id!r}: check the id and REDIS_URL; done jobs are kept for a while only")


class JobCaptured(JobNotFound):
    """A test has captured the job: it is in no Redis, and no worker runs it.

    Attributes:
        job_id: the id of the job.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        fix = "run it with run_all() of what capture() gave, or test without capture(), with drain()"
        LookupError.__init__(self, f"job {job_id!r} was captured by rqjobs.testing, so no worker runs it: {fix}")


class UnreadableJob(RQJobsError, ValueError):
    """The record of a job in Redis is not what RQ writes.

    Attributes:
        job_id: the id of the job.
    """

    def __init__(self, job_id: str, reason: str) -> None:
        self.job_id = job_id
        why = " ".join(reason.split())[:200]
        super().__init__(f"the record of job {job_id!r} cannot be read: {why}. Delete it with: rqjobs failed purge ID")


class JobFailed(RQJobsError):
    """The job waited for is dead: its attempts are used up, or its failure was permanent.

    Attributes:
        job_id: the job's id.
        reason: the last error, one line.
    """

    def __init__(self, job_id: str, reason: str) -> None:
        self.job_id = job_id
        self.reason = reason
        super().__init__(f"job {job_id} failed: {reason}. See it with: rqjobs jobs show {job_id}")


class ResultTimeout(RQJobsError, TimeoutError):
    """The job waited for was not done in time. It goes on; only the waiting ended.

    Attributes:
        job_id: the job's id.
        status: what the job was doing when the time was over.
    """

    def __init__(self, job_id: str, timeout: timedelta, status: str) -> None:
        self.job_id = job_id
        self.status = status
        super().__init__(f"job {job_id} is still {status} after {timeout.total_seconds():g} s of waiting")


class PermanentFailure(RQJobsError):
    """Raised by a processor: trying again cannot help, the job is dead at once.

    Attributes:
        reason: one line, which the list of dead letters shows.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class RetryLater(RQJobsError):
    """Raised by a processor: run this job again after a given wait (Retry-After, a rate limit).

    Attributes:
        after: how long to wait, instead of the queue's backoff.
        reason: one line for the job's history.
        counts: whether this run uses up an attempt. True by default, so that an endpoint that
            asks for later for ever ends as a dead letter; False for limits of our own making.
    """

    def __init__(self, after: timedelta, reason: str, *, counts: bool = True) -> None:
        self.after = max(after, timedelta())
        self.reason = reason
        self.counts = counts
        super().__init__(reason)


class JobTimeout(RQJobsError, TimeoutError):
    """A job ran past its time limit. It is retried by its queue's policy.

    Attributes:
        limit: the time limit.
    """

    def __init__(self, limit: timedelta) -> None:
        self.limit = limit
        super().__init__(f"the job ran past its time limit of {limit.total_seconds():g} s")
