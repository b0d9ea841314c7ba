"""The jobs in Redis: is each where its status says, and will workers take it? Looks at some thousands of them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import redis
from rq.utils import as_text

from rqjobs.doctor.finding import Finding, fault
from rqjobs.layout import ENDED, ENTRY, allowed, job_key, key
from rqjobs.queues import lanes, policies

_LOOKED_AT = 2000
_NAMED = 3
_PICKLE = b"\x80"  # the first byte of every pickle since protocol 2
_VERIFIED = 50


class _Seen(NamedTuple):
    job_id: str
    status: str
    origin: str
    enqueued_at: str
    data: bytes


def _sample(client: redis.Redis) -> list[_Seen]:
    names = list(islice(client.scan_iter(match=key("job", "*"), count=1000, _type="hash"), _LOOKED_AT))
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hmget(name, "status", "origin", "enqueued_at", "data")
        answers = pipeline.execute()
    prefix = len(key("job", ""))
    return [
        _Seen(as_text(name)[prefix:], as_text(status or b""), as_text(origin or b""), as_text(at or b""), data or b"")
        for name, (status, origin, at, data) in zip(names, answers, strict=True)
    ]


def lost(client: redis.Redis) -> Iterator[Finding]:
    """Jobs that say they wait or run, and are in no list: nothing would ever run them."""
    suspects = [job for job in _sample(client) if job.status in ("queued", "scheduled", "started")]
    gone = _missing(_again(_missing(suspects, client), client), client)  # what was on its way a moment ago has arrived
    if gone:
        names = ", ".join(job.job_id for job in gone[:_NAMED])
        said = f"{len(gone)} jobs are in no list, such as {names} (status {gone[0].status})"
        mend = "enqueue them again; a stock rq worker loses jobs when it is killed, rqjobs worker does not"
        yield fault("", said, mend)


def _again(jobs: list[_Seen], client: redis.Redis) -> list[_Seen]:
    with client.pipeline(transaction=False) as pipeline:
        for job in jobs:
            pipeline.hget(job_key(job.job_id), "status")
        answers = pipeline.execute()
    return [job for job, status in zip(jobs, answers, strict=True) if status == job.status.encode()]


def _missing(jobs: list[_Seen], client: redis.Redis) -> list[_Seen]:
    """Those of ``jobs`` that are not where they say."""
    origins = sorted({job.origin for job in jobs})
    with client.pipeline(transaction=False) as pipeline:
        for origin in origins:
            pipeline.lindex(key("queue", origin), 0)
            pipeline.zrange(key("wip", origin), 0, 20_000)
        answers = pipeline.execute()
    heads = dict(zip(origins, answers[::2], strict=True))
    running = {as_text(entry).partition(":")[0] for page in answers[1::2] for entry in page}
    oldest = _enqueued(heads, client)
    found = [job for job in jobs if job.status == "started" and job.job_id not in running]
    scheduled = [job for job in jobs if job.status == "scheduled"]
    # In a queue of a million nobody looks for each: only what is older than the queue's head can be missing.
    queued = [job for job in jobs if job.status == "queued" and job.enqueued_at < oldest.get(job.origin, "~")]
    queued = queued[:_VERIFIED]
    with client.pipeline(transaction=False) as pipeline:
        for job in scheduled:
            pipeline.zscore(key("scheduled", job.origin), job.job_id)
        for job in queued:
            pipeline.lpos(key("queue", job.origin), job.job_id)
            pipeline.lpos(key("queue", job.origin) + ":intermediate", job.job_id)
        answers = pipeline.execute()
    found += [job for job, score in zip(scheduled, answers, strict=False) if score is None]
    places = answers[len(scheduled) :]
    found += [
        job
        for job, here, there in zip(queued, places[::2], places[1::2], strict=True)
        if here is None and there is None
    ]
    return found


def _enqueued(heads: dict[str, bytes | None], client: redis.Redis) -> dict[str, str]:
    """When the first job of each queue was enqueued; a queue without jobs is left out."""
    known = {origin: head for origin, head in heads.items() if head is not None}
    with client.pipeline(transaction=False) as pipeline:
        for head in known.values():
            pipeline.hget(job_key(as_text(head)), "enqueued_at")
        return {origin: as_text(at or b"~") for origin, at in zip(known, pipeline.execute(), strict=True)}


def serializer(client: redis.Redis) -> Iterator[Finding]:
    """Jobs that were enqueued with RQ's default serializer: our workers refuse to unpickle."""
    pickled = [job for job in _sample(client) if _plain(job.data)[:1] == _PICKLE and job.status not in ENDED]
    if pickled:
        names = ", ".join(job.job_id for job in pickled[:_NAMED])
        mend = "enqueue with rqjobs, or Queue(..., serializer=JSONSerializer)"
        yield fault("", f"{len(pickled)} jobs are pickled, such as {names}; they will be refused", mend)


def functions(client: redis.Redis) -> Iterator[Finding]:
    """Jobs in our queues that name what our workers do not run."""
    ours = {lane for policy in policies() for lane in lanes(policy.name)}
    names: dict[str, int] = {}
    for job in _sample(client):
        name = _function(job.data)
        if job.origin in ours and job.status not in ENDED and name not in (None, ENTRY, *allowed()):
            names[str(name)] = names.get(str(name), 0) + 1
    for name, number in names.items():
        mend = "register it: rqjobs.layout.allow, in a module of RQJOBS_IMPORT"
        yield fault("", f"{number} jobs call {name[:80]!r}, which is not registered; they will be refused", mend)


def _plain(data: bytes) -> bytes:
    try:
        return zlib.decompress(data) if data[:1] == b"x" else data
    except zlib.error:
        return data


def _function(data: bytes) -> str | None:
    try:
        call: Any = json.loads(_plain(data))
        return str(call[0])
    except (ValueError, LookupError, TypeError):
        return None
