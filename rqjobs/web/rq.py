"""rq-dashboard 0.9 under ``/rq``: its pages and addresses, hardened.

What is wrong upstream is replaced here, each by the endpoint's name: it unpickles, changes state on GET, runs what
jobs say in the browser, breaks on dependencies, unknown jobs and rate limits, and reads whole queues for one page.
Templates of the same names in our folder win over its own, so none of its scripts is ever sent.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, cast

import redis
import rq_dashboard.web as upstream
from flask import Flask, Response, abort, current_app, jsonify, render_template, request, url_for
from flask.typing import ResponseReturnValue
from rq.rate_limit import RateLimitRegistry
from rq.utils import as_text

from rqjobs import dead_letters
from rqjobs.connection import get_connection
from rqjobs.health import workers
from rqjobs.history import read_history, summarize
from rqjobs.layout import SERIALIZER, RegisteredJob, fetch_job, job_key, key, payload_of, run_script

REGISTRIES = {
    "queued": "queue",
    "scheduled": "scheduled",
    "deferred": "deferred",
    "started": "wip",
    "finished": "finished",
    "failed": "failed",
    "canceled": "canceled",
}
RATE_LIMITED = "rate_limited"
_MOST_A_PAGE = 200
_AT_ONCE = 2000  # more jobs than this are changed behind the request's back
_CHUNK = 500


def mount(app: Flask, shown_url: str) -> None:
    """Registers rq-dashboard's blueprint under ``/rq``, with our functions where its own are at fault.

    Args:
        app: the dashboard, whose login and headers hold here as well.
        shown_url: Redis' address without its password, for its pages.
    """
    # It would open connections of its own, by an address and without our TLS, Sentinel and embedded server.
    upstream.from_url = lambda *_args, **_options: (None, get_connection())
    upstream.config.serializer = SERIALIZER
    app.config["RQ_DASHBOARD_REDIS_URL"] = (shown_url,)
    app.redis_conn = None  # type: ignore[attr-defined]  # it sets this before each of its requests
    app.register_blueprint(upstream.blueprint, url_prefix="/rq")
    for endpoint, function in _OURS.items():
        app.view_functions[f"rq_dashboard.{endpoint}"] = function
    for rule in app.url_map.iter_rules("rq_dashboard.requeue_all"):
        if rule.methods is not None:
            rule.methods -= {"GET", "HEAD"}
    app.before_request(_only_this_redis)


def _only_this_redis() -> None:
    if request.blueprint == "rq_dashboard":
        current_app.redis_conn = get_connection()  # type: ignore[attr-defined]
        if (request.view_args or {}).get("instance_number", 0) != 0:
            abort(404, "There is one Redis here, number 0.")
        registry = (request.view_args or {}).get("registry_name", "queued")
        if registry != RATE_LIMITED and registry not in REGISTRIES:
            abort(404, f"There is no registry {registry!r}.")


def _workers_overview(instance_number: int) -> ResponseReturnValue:
    return render_template("rq_dashboard/workers.html", current_instance=instance_number)


def _job_view(instance_number: int, job_id: str) -> ResponseReturnValue:
    job = fetch_job(job_id, get_connection())
    return render_template("rq_dashboard/job.html", current_instance=instance_number, id=job.id)


def _list_workers(instance_number: int) -> Response:  # noqa: ARG001  # a part of the address
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


def _list_jobs(  # noqa: PLR0917  # Flask passes them by name
    instance_number: int, queue_name: str, registry_name: str, per_page: str, order: str, page: str
) -> Response:
    size = min(max(_number(per_page), 1), _MOST_A_PAGE)
    number = max(_number(page), 1)
    total, ids = _ids(queue_name, registry_name, (number - 1) * size, size, newest=order == "dsc")
    client = get_connection()
    found = RegisteredJob.fetch_many(ids, connection=client, serializer=SERIALIZER) if ids else []
    jobs = [job for job in found if job is not None]
    failed = [job.id for job in jobs if registry_name == "failed"]
    errors = {job_id: past.error for job_id, past in zip(failed, summarize(failed, client), strict=True)}
    last = max(1, -(-total // size))

    def link(to: int) -> dict[str, Any]:
        return {
            "number": to,
            "url": url_for(
                "rq_dashboard.jobs_overview", instance_number=instance_number, queue_name=queue_name,
                registry_name=registry_name, per_page=size, order="dsc" if order == "dsc" else "asc", page=to,
            ),
        }  # fmt: skip

    window = range(max(1, min(number - 5, last - 9)), min(last, max(10, number + 4)) + 1)
    pagination: dict[str, Any] = {
        "current_page": number,
        "num_pages": last,
        "pages_in_window": [link(each) for each in window],
        "first_page": link(1),
        "last_page": link(last),
    }
    if number > 1:
        pagination["prev_page"] = link(min(number - 1, last))
    if number < last:
        pagination["next_page"] = link(number + 1)
    return jsonify(
        name=queue_name,
        registry_name=registry_name,
        total=total,
        pagination=pagination,
        jobs=[
            {
                "id": job.id,
                "description": job.description or job.func_name,
                "created_at": _iso(job.created_at),
                "started_at": _iso(job.started_at),
                "ended_at": _iso(job.ended_at),
                "exc_info": errors.get(job.id),
            }
            for job in jobs
        ],
    )


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        abort(404)


def _ids(queue: str, registry: str, start: int, size: int, *, newest: bool) -> tuple[int, list[str]]:
    """How many jobs are there, and the ids of one page, in one read of that page."""
    client = get_connection()
    if registry == RATE_LIMITED:
        waiting = _rate_limited(queue, client)
        return len(waiting), (waiting[::-1] if newest else waiting)[start : start + size]
    if registry not in REGISTRIES:
        abort(404, f"There is no registry {registry!r}.")
    name = key(REGISTRIES[registry], queue)
    found: list[bytes]
    if registry == "queued":
        total = client.llen(name)
        end = total - start if newest else min(total, start + size)
        begin = max(0, end - size) if newest else start
        found = cast("list[bytes]", client.lrange(name, begin, end - 1)) if end > begin else []
        found = found[::-1] if newest else found
    else:
        total = client.zcard(name)
        found = cast("list[bytes]", client.zrange(name, start, start + size - 1, desc=newest))
    # An entry of the started registry is "job:execution".
    return total, [as_text(entry).partition(":")[0] for entry in found]


def _rate_limited(queue: str, client: redis.Redis) -> list[str]:
    """The jobs of ``queue`` that an RQ rate limit holds back: RQ keeps them by limit, not by queue."""
    limits = sorted(as_text(name) for name in cast("set[bytes]", client.smembers(RateLimitRegistry.rl_keys_key)))
    with client.pipeline(transaction=False) as pipeline:
        for limit in limits:
            pipeline.zrange(key("rl", limit, "rate_limited"), 0, 999)
        ids = [as_text(job_id) for page in pipeline.execute() for job_id in page]
        for job_id in ids:
            pipeline.hget(job_key(job_id), "origin")
        origins = pipeline.execute()
    return [job_id for job_id, origin in zip(ids, origins, strict=True) if origin == queue.encode()]


def _job_info(instance_number: int, job_id: str) -> Response:  # noqa: ARG001  # a part of the address
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


def _delete_job(job_id: str) -> Response:
    fetch_job(job_id, get_connection()).delete()
    return jsonify(status="OK")


def _requeue_job(job_id: str) -> Response:
    if not dead_letters.requeue([job_id]):
        abort(409, "The job is not dead (any more).")
    return jsonify(status="OK")


def _requeue_all(queue_name: str) -> Response:
    ids = [as_text(each) for each in cast("list[bytes]", get_connection().zrange(key("failed", queue_name), 0, -1))]
    _do(len(ids), lambda: dead_letters.requeue(ids))
    return jsonify(status="OK", count=len(ids))


def _empty_queue(queue_name: str, registry_name: str) -> Response:
    if registry_name in ("started", RATE_LIMITED):
        abort(409, "Jobs that run, or wait for an RQ rate limit, are not deleted here.")
    client = get_connection()
    words = [REGISTRIES[registry_name], queue_name, _CHUNK]
    total, _ = _ids(queue_name, registry_name, 0, 1, newest=False)

    def empty() -> None:
        left = total  # what is enqueued meanwhile stays
        while left > 0 and (gone := run_script("empty", client, [*words[:2], min(left, _CHUNK)])):
            left -= gone

    _do(total, empty)
    return jsonify(status="OK", count=total)


def _compact_queue(queue_name: str) -> Response:
    """Takes ids out whose jobs are gone. RQ's own empties the queue first, and would lose it if it were killed."""
    client = get_connection()
    name = key("queue", queue_name)

    def compact() -> None:
        start = 0
        while ids := [as_text(each) for each in cast("list[bytes]", client.lrange(name, start, start + _CHUNK - 1))]:
            with client.pipeline(transaction=False) as pipeline:
                for job_id in ids:
                    pipeline.exists(job_key(job_id))
                gone = [job_id for job_id, there in zip(ids, pipeline.execute(), strict=True) if not there]
                for job_id in gone:
                    pipeline.lrem(name, 1, job_id)
                pipeline.execute()
            start += len(ids) - len(gone)

    _do(client.llen(name), compact)
    return jsonify(status="OK")


def _do(size: int, work: Callable[[], Any]) -> None:
    """Few jobs at once, many while the answer is already on its way."""
    if size <= _AT_ONCE:
        work()
    else:
        threading.Thread(target=work, name="rq-dashboard", daemon=True).start()


_OURS: dict[str, Callable[..., ResponseReturnValue]] = {
    "workers_overview": _workers_overview,
    "job_view": _job_view,
    "list_workers": _list_workers,
    "list_jobs": _list_jobs,
    "job_info": _job_info,
    "delete_job_view": _delete_job,
    "requeue_job_view": _requeue_job,
    "requeue_all": _requeue_all,
    "empty_queue": _empty_queue,
    "compact_queue": _compact_queue,
}
"""rq-dashboard's endpoints that are ours. Its own are the queues, the pages around the lists, and its favicon."""
