"""The data of rq-dashboard's pages, read without pickle, a page at a time: the responses of its ``data`` URLs."""

from __future__ import annotations

import json
from typing import Any, cast

import redis
from flask import Response, abort, jsonify
from rq.rate_limit import RateLimitRegistry

from rqjobs.broker.attempts import read_history, summarize
from rqjobs.broker.connection import get_connection
from rqjobs.broker.groups import count_waiting, waiting_ids
from rqjobs.broker.job_records import read_records
from rqjobs.broker.rq_schema import UNREADABLE, fetch_job, job_key, key, payload_of
from rqjobs.broker.rq_types import as_text
from rqjobs.monitoring.workers import workers

REGISTRIES = {
    "queued": "queue",
    "scheduled": "scheduled",
    "deferred": "deferred",
    "started": "wip",
    "finished": "finished",
    "failed": "failed",
    "canceled": "canceled",
}
"""The names of RQ's registries in rq-dashboard, and in Redis."""

RATE_LIMITED = "rate_limited"
"""The registry that RQ stores by limit instead of by queue."""

_MOST_A_PAGE = 200
_LAST_PAGE = 10**9  # beyond 64 bits Redis returns an error


def list_workers(instance_number: int) -> Response:  # noqa: ARG001  # a part of the URL
    """Returns the workers, and the job that each runs."""
    client = get_connection()
    found = workers(client)
    with client.pipeline(transaction=False) as pipeline:
        for worker in found:
            pipeline.hget(key("worker", worker.name), "current_job")
        ids = [as_text(job_id) if job_id else None for job_id in pipeline.execute()]
        for job_id in ids:
            pipeline.hmget(job_key(job_id or ""), "description", "created_at")
        jobs = pipeline.execute()
    return jsonify(
        workers=[
            {
                "name": worker.name,
                "pid": worker.pid,
                "queues": list(worker.queues),
                "state": worker.state,
                "current_job": _current(job_id, *job) if job_id else "idle",
                "running": worker.running,
                "last_heartbeat": _iso(worker.heartbeat),
                "birth_date": _iso(worker.since),
                "successful_job_count": worker.done,
                "failed_job_count": worker.failed,
                "version": worker.version,
            }
            for worker, job_id, job in zip(found, ids, jobs, strict=True)
        ]
    )


def _current(job_id: str, description: bytes | None, created: bytes | None) -> dict[str, str | None]:
    label = as_text(description) if description else job_id
    stamp = as_text(created) if created else None
    return {"job_id": job_id, "description": label, "created_at": stamp, "call_string": label}


def _iso(moment: Any) -> str | None:
    return moment.isoformat() if moment else None


def list_jobs(  # noqa: PLR0917  # Flask passes them by name
    instance_number: int,  # noqa: ARG001
    queue_name: str,
    registry_name: str,
    per_page: str,
    order: str,
    page: str,
) -> Response:
    """Returns one page of the jobs of a queue in one registry."""
    size, number = min(max(_number(per_page), 1), _MOST_A_PAGE), max(_number(page), 1)
    total, ids = page_of(queue_name, registry_name, (number - 1) * size, size, newest=order == "dsc")
    client = get_connection()
    found = read_records(ids, client)
    failed = registry_name == "failed"
    return jsonify(
        total=total,
        page=number,
        pages=max(1, -(-total // size)),
        jobs=[
            {
                "id": job_id,
                "description": (job.description or job.func_name) if job else UNREADABLE,
                "created_at": _iso(job.created_at) if job else None,
                "exc_info": (fault or past.error) if failed else None,
            }
            for (job_id, job, fault), past in zip(found, summarize(ids, client), strict=True)
            if job is not None or fault is not None
        ],
    )


def _number(text: str) -> int:
    try:
        return min(int(text), _LAST_PAGE)
    except ValueError:
        abort(404)


def page_of(queue: str, registry: str, start: int, size: int, *, newest: bool) -> tuple[int, list[str]]:
    """Returns the number of jobs, and the ids of one page."""
    client = get_connection()
    if registry == RATE_LIMITED:
        waiting = _rate_limited(queue, client)
        return len(waiting), (waiting[::-1] if newest else waiting)[start : start + size]
    if registry not in REGISTRIES:
        abort(404, f"There is no registry {registry!r}.")
    name = key(REGISTRIES[registry], queue)
    found: list[bytes]
    if registry == "queued":
        total = sum(count_waiting(client, queue))
        end = total - start if newest else min(total, start + size)
        begin = max(0, end - size) if newest else start
        found = waiting_ids(client, queue, begin, end) if end > begin else []
        found = found[::-1] if newest else found
    else:
        total = client.zcard(name)
        found = cast("list[bytes]", client.zrange(name, start, start + size - 1, desc=newest))
    # An entry of the started registry is "job:execution".
    return total, [entry.decode(errors="replace").partition(":")[0] for entry in found]


def _rate_limited(queue: str, client: redis.Redis) -> list[str]:
    """Returns the jobs of ``queue`` that wait for an RQ rate limit, which RQ stores by limit, not by queue."""
    limits = sorted(as_text(name) for name in cast("set[bytes]", client.smembers(RateLimitRegistry.rl_keys_key)))
    with client.pipeline(transaction=False) as pipeline:
        for limit in limits:
            pipeline.zrange(key("rl", limit, "rate_limited"), 0, 999)
        ids = [as_text(job_id) for page in pipeline.execute() for job_id in page]
        for job_id in ids:
            pipeline.hget(job_key(job_id), "origin")
        origins = pipeline.execute()
    return [job_id for job_id, origin in zip(ids, origins, strict=True) if origin == queue.encode()]


def job_info(instance_number: int, job_id: str) -> Response:  # noqa: ARG001  # a part of the URL
    """Returns one job, and its dependencies."""
    client = get_connection()
    job = fetch_job(job_id, client)
    known = payload_of(job)
    latest = next(reversed(read_history(job)), None)
    document: dict[str, Any] = {
        "id": job.id,
        "created_at": _iso(job.created_at),
        "enqueued_at": _iso(job.enqueued_at),
        "started_at": _iso(job.started_at),
        "ended_at": _iso(job.ended_at),
        "origin": job.origin,
        "status": job.get_status(refresh=False).value,
        "result": latest.result if latest else None,
        "exc_info": latest.traceback if latest else None,
        "description": job.description,
        "function": known[0] if known else job.func_name,
        "metadata": job.meta,
    }
    depends_on = [as_text(each) for each in job._dependency_ids]  # noqa: SLF001  # the public name reads Redis
    if depends_on:
        with client.pipeline(transaction=False) as pipeline:
            for each in depends_on:
                pipeline.exists(job_key(each))
            document["depends_on_status"] = ["active" if there else "expired" for there in pipeline.execute()]
        document["depends_on"] = depends_on
    return Response(json.dumps(document, default=str), mimetype="application/json")
