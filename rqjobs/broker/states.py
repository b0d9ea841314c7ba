"""The five states of a job, and the table that translates RQ's words to them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The state of a job. Commands, pages, metrics and logs show these words."""

    WAITING = "waiting"
    """In its queue: a worker can claim it now, or when the jobs that it depends on are done."""
    DELAYED = "delayed"
    """Its first run, or its next run after a failed one, is due at a later time."""
    RUNNING = "running"
    """A worker has claimed it and holds its lease."""
    DONE = "done"
    """Its function has returned. The job and its result are kept for the queue's result time."""
    DEAD = "dead"
    """It failed for good, or it was stopped or cancelled. It is kept as a dead letter, and can be requeued."""


BY_RQ_STATUS = {
    "created": State.WAITING,
    "queued": State.WAITING,
    "deferred": State.WAITING,
    "ready_to_enqueue": State.WAITING,
    "rate_limited": State.WAITING,
    "scheduled": State.DELAYED,
    "started": State.RUNNING,
    "finished": State.DONE,
    "failed": State.DEAD,
    "stopped": State.DEAD,
    "canceled": State.DEAD,
}
"""The state for each value of ``rq.job.JobStatus``, which is in the field ``status`` of a job's hash."""

RQ_REGISTRIES = {
    State.WAITING: "queue",
    State.DELAYED: "scheduled",
    State.RUNNING: "wip",
    State.DONE: "finished",
    State.DEAD: "failed",
}
"""The word in the key of RQ's registry for the jobs in each state: ``rq:wip:webhooks``."""


def state_of(status: str | bytes | None) -> State | None:
    """Returns the state for an RQ ``status``; None if the job has no status, or one that RQ 3 does not define."""
    text = status.decode(errors="replace") if isinstance(status, bytes) else status
    return BY_RQ_STATUS.get(text or "")
