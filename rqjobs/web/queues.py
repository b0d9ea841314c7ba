"""The page of one queue: its problems, its jobs in each state, its pause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from flask import Blueprint, flash, redirect, render_template, request
from flask.typing import ResponseReturnValue

from rqjobs.broker import keys
from rqjobs.broker.attempts import Summary, summarize
from rqjobs.broker.connection import get_connection
from rqjobs.broker.groups import waiting_ids
from rqjobs.broker.job_records import read_records
from rqjobs.broker.rq_schema import attempts_seen, key
from rqjobs.broker.rq_types import Job
from rqjobs.broker.states import RQ_REGISTRIES, State
from rqjobs.monitoring.queue_health import pause, queue_health, resume
from rqjobs.policies import get_policy, lanes
from rqjobs.web.auth import local
from rqjobs.web.show import is_overdue

blueprint = Blueprint("queues", __name__, url_prefix="/queues")

_PAGE = 50
_LAST_PAGE = 10**9  # beyond 64 bits Redis returns an error


@dataclass(frozen=True)
class _Row:
    """One job in the table."""

    job_id: str
    job: Job | None
    """The job; None if it is not kept any more, or cannot be read."""
    fault: str | None
    """Why it cannot be read."""
    past: Summary
    due: float | None
    """The time at which a delayed job runs."""

    @property
    def overdue(self) -> bool:
        """Whether a delayed job is due but still not in its queue."""
        return self.due is not None and is_overdue(self.due)

    @property
    def attempts(self) -> str:
        """The attempts as text, such as ``2 of 3``, or their number if the job has ended."""
        return attempts_seen(self.job, self.past.runs) if self.job else ""


@blueprint.get("/<name>")
def show(name: str) -> ResponseReturnValue:
    """Shows the jobs of a queue in one state, a page at a time, lane by lane."""
    policy = get_policy(name)
    state = request.args.get("state", "waiting")
    state = state if state in RQ_REGISTRIES else "waiting"
    lane = request.args.get("lane", name)
    lane = lane if lane in lanes(policy.name) else policy.name
    page = min(max(0, request.args.get("page", 0, type=int)), _LAST_PAGE)
    client = get_connection()
    counts = _counts(policy.name, client)
    rows = _rows(state, lane, page, client)
    return render_template(
        "queue.html",
        health=next(queue for queue in queue_health(client) if queue.name == policy.name),
        state=state,
        states={each: sum(by_lane.values()) for each, by_lane in counts.items()},
        lane=lane,
        lanes=counts[state],
        rows=rows,
        page=page,
        first=page * _PAGE + 1,
        last=page * _PAGE + len(rows),
        total=counts[state][lane],
    )


def _counts(queue: str, client: redis.Redis) -> dict[str, dict[str, int]]:
    """Returns the number of jobs in each state, by lane."""
    with client.pipeline(transaction=False) as pipeline:
        for state, registry in RQ_REGISTRIES.items():
            for lane in lanes(queue):
                (pipeline.llen if state == "waiting" else pipeline.zcard)(key(registry, lane))
        for lane in lanes(queue):
            pipeline.zcard(keys.group_waiting(lane))
        answers = iter(pipeline.execute())
    counts: dict[str, dict[str, int]] = {
        state: {lane: next(answers) for lane in lanes(queue)} for state in RQ_REGISTRIES
    }
    for lane in lanes(queue):
        counts[State.WAITING][lane] += next(answers)
    return counts


def _rows(state: str, lane: str, page: int, client: redis.Redis) -> list[_Row]:
    source, start, end = key(RQ_REGISTRIES[State(state)], lane), page * _PAGE, page * _PAGE + _PAGE - 1
    if state == "waiting":
        entries: Any = [(job_id, None) for job_id in waiting_ids(client, lane, start, end + 1)]
    else:
        entries = client.zrange(source, start, end, desc=state in ("dead", "done"), withscores=True)
    # An entry of the started registry is "job:execution".
    records = read_records([entry.partition(b":")[0] for entry, _score in entries], client)
    past = summarize([record.job_id for record in records], client)
    return [
        _Row(job_id, job, fault, summary, score if state == "delayed" else None)
        for (job_id, job, fault), summary, (_entry, score) in zip(records, past, entries, strict=True)
    ]


@blueprint.post("/<name>/pause")
def hold(name: str) -> ResponseReturnValue:
    """Pauses the queue."""
    pause(name)
    flash(f"{name} is paused. Running jobs continue, new ones wait.")
    return redirect(local(request.form.get("next")))


@blueprint.post("/<name>/resume")
def go_on(name: str) -> ResponseReturnValue:
    """Ends a pause."""
    resume(name)
    flash(f"{name} is resumed.")
    return redirect(local(request.form.get("next")))
