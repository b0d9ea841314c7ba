"""rq-dashboard 0.9 under ``/rq``: its pages and URLs, hardened.

Faults of its own code are fixed here, each by replacing an endpoint: it unpickles, changes state on GET, runs text of
jobs in the browser, fails on dependencies, unknown jobs and rate limits, and reads whole queues for one page.
Templates with the same names in our folder override its own, so none of its scripts is ever sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import rq_dashboard.web as upstream
from flask import Flask, Response, abort, current_app, jsonify, render_template, request
from flask.typing import ResponseReturnValue

from rqjobs.broker import job_actions
from rqjobs.broker.connection import get_connection
from rqjobs.broker.rq_schema import SERIALIZER, fetch_job, job_key, key, run_script
from rqjobs.broker.rq_types import KnownQueue, as_text
from rqjobs.dead_letters import letters as dead_letters
from rqjobs.web.rq_data import RATE_LIMITED, REGISTRIES, job_info, list_jobs, list_workers, page_of

_AT_ONCE = 2000  # more jobs than this are changed in the background, after the response
_CHUNK = 500


def mount(app: Flask, shown_url: str) -> None:
    """Registers rq-dashboard's blueprint under ``/rq``, with our functions in place of its faulty ones.

    Args:
        app: the dashboard, whose login and headers apply here as well.
        shown_url: Redis' address without its password, for its pages.
    """
    # Otherwise it would open its own connections, without our support for TLS, Sentinel and the embedded server.
    upstream.from_url = lambda *_args, **_options: (None, get_connection())
    upstream.config.serializer = SERIALIZER
    upstream.Queue = KnownQueue
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
            abort(404, "There is only one Redis, number 0.")
        registry = (request.view_args or {}).get("registry_name", "queued")
        if registry != RATE_LIMITED and registry not in REGISTRIES:
            abort(404, f"There is no registry {registry!r}.")


def _workers_overview(instance_number: int) -> ResponseReturnValue:
    return render_template("rq_dashboard/workers.html", current_instance=instance_number)


def _job_view(instance_number: int, job_id: str) -> ResponseReturnValue:
    job = fetch_job(job_id, get_connection())
    return render_template("rq_dashboard/job.html", current_instance=instance_number, id=job.id)


def _delete_job(job_id: str) -> Response:
    job = fetch_job(job_id, get_connection())
    if not dead_letters.purge([job_id]) and not job_actions.delete(job_id):  # these are counted
        job.delete()
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
    total, _ = page_of(queue_name, registry_name, 0, 1, newest=False)

    def empty() -> None:
        left = total  # jobs enqueued from now on stay
        while left > 0 and (gone := run_script("empty", client, [*words[:2], min(left, _CHUNK)])):
            left -= gone

    _do(total, empty)
    return jsonify(status="OK", count=total)


def _compact_queue(queue_name: str) -> Response:
    """Removes ids of deleted jobs. RQ's own method empties the queue first, and would lose it if it were killed."""
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
    """Changes a few jobs before the response, and many in the background."""
    if size <= _AT_ONCE:
        work()
    else:
        threading.Thread(target=work, name="rq-dashboard", daemon=True).start()


_OURS: dict[str, Callable[..., ResponseReturnValue]] = {
    "workers_overview": _workers_overview,
    "job_view": _job_view,
    "list_workers": list_workers,
    "list_jobs": list_jobs,
    "job_info": job_info,
    "delete_job_view": _delete_job,
    "requeue_job_view": _requeue_job,
    "requeue_all": _requeue_all,
    "empty_queue": _empty_queue,
    "compact_queue": _compact_queue,
}
"""The replaced endpoints of rq-dashboard. Its own are the queues, the pages around the lists, and its favicon."""
