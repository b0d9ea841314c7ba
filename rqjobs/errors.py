"""All errors of rqjobs, subclasses of RQJobsError. Each has its data as attributes and a message that names the fix."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta


class RQJobsError(Exception):
    """The base class of all errors that rqjobs raises."""


class InvalidJob(RQJobsError, ValueError):
    """The job is invalid; nothing was enqueued.

    Attributes:
        kind: the name of the job model, such as ``WebhookJob``.
        faults: every fault found, each with the name of its field.
    """

    def __init__(self, kind: str, faults: Sequence[str]) -> None:
        self.kind = kind
        self.faults = tuple(faults)
        super().__init__(f"{kind}: {'; '.join(faults)}")


class InvalidSettings(RQJobsError, ValueError):
    """The settings are invalid.

    Attributes:
        faults: every fault found, each with its variable and the fix.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(["the settings have faults:", *(f"  {fault}" for fault in faults)]))


class InvalidSchedule(RQJobsError, ValueError):
    """The schedule is invalid; nothing was written to Redis.

    Attributes:
        name: the schedule.
        faults: every fault found, each with the name of its argument.
    """

    def __init__(self, name: str, faults: Sequence[str]) -> None:
        self.name = name
        self.faults = tuple(faults)
        super().__init__(f"schedule {name}: {'; '.join(faults)}")


class ScheduleNotFound(RQJobsError, LookupError):
    """There is no schedule with this name.

    Attributes:
        name: the unknown name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"no schedule {name!r}; see them with: rqjobs schedules list")


class InvalidHook(RQJobsError, ValueError):
    """A hook of :func:`rqjobs.on` has no kind, or an unknown one.

    Attributes:
        kind: the unknown kind; "" if none was given.
    """

    def __init__(self, kind: str, known: Sequence[str]) -> None:
        self.kind = kind
        words = " | ".join(f'"{each}"' for each in known)
        super().__init__(
            f"{f'unknown kind {kind!r}' if kind else 'no kind given'}: write @rqjobs.on({words}, queue=None)"
        )


class BatchNotFound(RQJobsError, LookupError):
    """There is no batch with this id: it was cancelled, or it was done more than a day ago.

    Attributes:
        batch_id: the unknown id.
    """

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        super().__init__(f"no batch {batch_id!r}: it was cancelled, or done a day ago; see: rqjobs batches list")


class BatchFailed(RQJobsError):
    """Members of the batch are dead, and no other can start. Requeueing them lets the batch continue.

    Attributes:
        batch_id: the batch.
        dead: the number of dead members.
    """

    def __init__(self, batch_id: str, dead: int) -> None:
        self.batch_id = batch_id
        self.dead = dead
        fix = f"see why: rqjobs failed list; then: rqjobs batches requeue-dead {batch_id}"
        super().__init__(f"batch {batch_id} has {dead} dead jobs; {fix}")


class BatchTimeout(RQJobsError, TimeoutError):
    """The batch was not done within the time to wait. The batch itself is not affected.

    Attributes:
        batch_id: the batch.
        done: the number of done members.
        total: the number of members.
    """

    def __init__(self, batch_id: str, done: int, total: int, timeout: timedelta) -> None:
        self.batch_id = batch_id
        self.done = done
        self.total = total
        super().__init__(f"{done} of {total} jobs of batch {batch_id} are done after {timeout.total_seconds():g} s")


class UnknownQueue(RQJobsError, LookupError):
    """The policy table has no queue with this name.

    Attributes:
        name: the unknown name.
        known: the names that exist.
    """

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(f"unknown queue {name!r}; the queues are {', '.join(known)}")


class RedisUnavailable(RQJobsError, ConnectionError):
    """The Redis at REDIS_URL does not answer or accepts no writes: it is unreachable, starting, full, or a replica.

    There is no fallback, because jobs would be divided between two stores. A command in flight may have been executed.
    Every call that needs Redis can raise it. If redis-py's client has raised the error, it is also an instance of that
    error's class.

    Attributes:
        url: the address without its password.
        fix: what to do.
    """

    def __init__(self, url: str, reason: str, fix: str = "Start it, or fix REDIS_URL") -> None:
        self.url = url
        self.fix = fix
        super().__init__(f"Redis at {url} cannot be used: {reason.rstrip('.')}. {fix}.")


class DependencyUnavailable(RQJobsError):
    """Raised by a processor when a dependency of the job is unavailable, which is not the job's fault.

    No attempt is counted, and the run is not in the job's history. The queue is held: workers claim none of its jobs,
    except one trial at a time, after 1 s, 2 s, 4 s ... 60 s, until one succeeds. Then all jobs continue. ``rqjobs
    health``, the dashboard, alerts and metrics show the dependency, since when it is unavailable, and the reason.

    If a job finds a dependency unavailable five times while other jobs of its queue reach it, this error counts as a
    failure of the job.

    Attributes:
        dependency: a short name, such as ``database``. The same name is the same dependency.
        reason: one line with the error and the fix. It is shown on pages, so it must not contain secrets.
        scope: the part of the queue that needs the dependency, such as one of several accounts; "" (the default) for
            the whole queue. Only jobs that raise it with this scope are held.
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
        url: the address without its password.
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        text = f"the database at {url} cannot be used: {reason.rstrip('.')}. Start it, or fix DATABASE_URL."
        super().__init__("database", text)
        self.args = (text,)


class SchemaMismatch(DependencyUnavailable):
    """The tables in the database do not have the version that this rqjobs needs.

    Attributes:
        url: the address without its password.
        found: the version of the tables; None if they do not exist.
        needed: the version that this rqjobs needs.
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
    """A job with this id is waiting, delayed or running (or, with ``unique=True``, done and still kept).

    Attributes:
        job_ids: the ids that were not enqueued.
    """

    def __init__(self, job_ids: Sequence[str]) -> None:
        self.job_ids = tuple(job_ids)
        super().__init__(f"already enqueued: {', '.join(job_ids)}. Wait for it, or choose another job_id.")


class JobNotFound(RQJobsError, LookupError):
    """Redis has no job with this id: it was not enqueued there, or it is done and not kept any more.

    Attributes:
        job_id: the unknown id.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"no job {job_id!r}: check the id and REDIS_URL; done jobs are kept for a while only")


class JobCaptured(JobNotFound):
    """A test has captured the job: it is not in Redis, and no worker runs it.

    Attributes:
        job_id: the id of the job.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        fix = "run it with run_all() of what capture() gave, or test without capture(), with drain()"
        LookupError.__init__(self, f"job {job_id!r} was captured by rqjobs.testing, so no worker runs it: {fix}")


class UnreadableJob(RQJobsError, ValueError):
    """The record of a job in Redis cannot be read.

    Attributes:
        job_id: the id of the job.
    """

    def __init__(self, job_id: str, reason: str) -> None:
        self.job_id = job_id
        why = " ".join(reason.split())[:200]
        super().__init__(f"the record of job {job_id!r} cannot be read: {why}. Delete it with: rqjobs failed purge ID")


class JobFailed(RQJobsError):
    """The job is dead: its attempts are used up, or its failure was permanent.

    Attributes:
        job_id: the job's id.
        reason: the last error, one line.
    """

    def __init__(self, job_id: str, reason: str) -> None:
        self.job_id = job_id
        self.reason = reason
        super().__init__(f"job {job_id} failed: {reason}. See it with: rqjobs jobs show {job_id}")


class ResultTimeout(RQJobsError, TimeoutError):
    """The job was not done within the time to wait. The job itself is not affected.

    Attributes:
        job_id: the job's id.
        status: the job's status at the end of the wait.
    """

    def __init__(self, job_id: str, timeout: timedelta, status: str) -> None:
        self.job_id = job_id
        self.status = status
        super().__init__(f"job {job_id} is still {status} after {timeout.total_seconds():g} s of waiting")


class PermanentFailure(RQJobsError):
    """Raised by a processor when a retry cannot succeed: the job is dead at once.

    Attributes:
        reason: one line, which the list of dead letters shows.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class RetryLater(RQJobsError):
    """Raised by a processor to run the job again after a given wait (Retry-After, a rate limit).

    Attributes:
        after: the wait, instead of that of the queue's backoff.
        reason: one line for the job's history.
        counts: whether this run counts as an attempt. True by default, so that a job for an endpoint that always
            responds with Retry-After is dead at last; False for our own limits.
    """

    def __init__(self, after: timedelta, reason: str, *, counts: bool = True) -> None:
        self.after = max(after, timedelta())
        self.reason = reason
        self.counts = counts
        super().__init__(reason)


class JobTimeout(RQJobsError, TimeoutError):
    """The run exceeded its time limit. The job is retried by its queue's policy.

    Attributes:
        limit: the time limit.
    """

    def __init__(self, limit: timedelta) -> None:
        self.limit = limit
        super().__init__(f"the job ran past its time limit of {limit.total_seconds():g} s")
