"""Checks of the jobs in Redis: each must be in the list of its status, and must be one that workers can run."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import redis

from rqjobs.broker.groups import waiting_in_groups
from rqjobs.broker.rq_schema import ENDED, ENTRY, allowed, job_key, key
from rqjobs.broker.rq_types import as_text
from rqjobs.monitoring.doctor.finding import Finding, fault, fine
from rqjobs.policies import lanes, policies

SAMPLE = 2000
"""The number of jobs that are checked without --every-job."""

_AT_ONCE = 1000
_NAMED = 3
_PICKLE = b"\x80"  # the first byte of every pickle since protocol 2
_FUNCTION = re.compile(rb'\[("(?:[^"\\]|\\.)*")')
_HEAD = 300  # the bytes of a job's data that contain the name of its function
_VERIFIED = 50
_READY = "ready_to_enqueue"  # a dependent whose dependencies are done, before it is in its queue
_REGISTRIES = {"scheduled": "scheduled", _READY: "ready"}
_SINCE = ("enqueued_at", "created_at")  # the first is missing if it equals the second


class _Job(NamedTuple):
    job_id: str
    status: str
    origin: str
    enqueued_at: str
    head: bytes
    """The beginning of its data."""


@dataclass
class Seen:
    """The results of a pass over the jobs."""

    jobs: int = 0
    every: bool = False
    """Whether every job was checked."""
    lost: list[_Job] = field(default_factory=list)
    pickled: list[str] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    """The functions that our workers do not run, with the number of their jobs."""

    @property
    def summary(self) -> str:
        """The number of checked jobs, as text."""
        return f"{self.jobs:,} jobs checked" + ("" if self.every else "; every one: rqjobs doctor --every-job")


def look(client: redis.Redis, *, every: bool) -> Seen:
    """Reads a sample of some thousands of jobs, or every one, once for all checks."""
    seen = Seen()
    known = {ENTRY, *allowed()}
    ours = {lane for policy in policies() for lane in lanes(policy.name)}
    names = client.scan_iter(match=key("job", "*"), count=_AT_ONCE, _type="hash")
    while chunk := list(islice(names, _AT_ONCE if every else min(_AT_ONCE, SAMPLE - seen.jobs))):
        seen.jobs += len(chunk)
        jobs = [job for job in _read(chunk, client) if job.status not in ENDED]
        seen.lost += _missing([job for job in jobs if job.status in ("queued", "scheduled", "started", _READY)], client)
        seen.pickled += [job.job_id for job in jobs if job.head[:1] == _PICKLE]
        seen.unknown.update(
            name for job in jobs if job.origin in ours and (name := _function(job.head)) and name not in known
        )
    seen.every = every or seen.jobs < SAMPLE
    seen.lost = _missing(_again(seen.lost, client), client)  # read again: some were only being moved
    return seen


def _read(names: list[bytes], client: redis.Redis) -> Iterator[_Job]:
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hmget(name, "status", "origin", *_SINCE, "data")
        answers = pipeline.execute()
    prefix = len(key("job", ""))
    for name, (status, origin, at, since, data) in zip(names, answers, strict=True):
        job_id, when = as_text(name)[prefix:], as_text(at or since or b"")
        yield _Job(job_id, as_text(status or b""), as_text(origin or b""), when, _plain(data or b""))


def _plain(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _HEAD) if data[:1] == b"x" else data[:_HEAD]
    except zlib.error:
        return data[:_HEAD]


def _function(head: bytes) -> str | None:
    match = _FUNCTION.match(head)
    return str(json.loads(match[1])) if match else None


def _again(jobs: list[_Job], client: redis.Redis) -> list[_Job]:
    with client.pipeline(transaction=False) as pipeline:
        for job in jobs:
            pipeline.hget(job_key(job.job_id), "status")
        answers = pipeline.execute()
    return [job for job, status in zip(jobs, answers, strict=True) if status == job.status.encode()]


def _missing(jobs: list[_Job], client: redis.Redis) -> list[_Job]:
    """Returns those of ``jobs`` that are not in the list of their status."""
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
    placed = [(job, _REGISTRIES[job.status]) for job in jobs if job.status in _REGISTRIES]
    # A queue of a million jobs is not searched for each: only a job older than the queue's first can be missing.
    queued = [job for job in jobs if job.status == "queued" and job.enqueued_at < oldest.get(job.origin, "~")]
    queued = queued[:_VERIFIED]
    with client.pipeline(transaction=False) as pipeline:
        for job, registry in placed:
            pipeline.zscore(key(registry, job.origin), job.job_id)
        for job in queued:
            pipeline.lpos(key("queue", job.origin), job.job_id)
            pipeline.lpos(key("queue", job.origin) + ":intermediate", job.job_id)
        answers = pipeline.execute()
    found += [job for (job, _), score in zip(placed, answers, strict=False) if score is None]
    places = answers[len(placed) :]
    unlisted = [
        job
        for job, here, there in zip(queued, places[::2], places[1::2], strict=True)
        if here is None and there is None
    ]
    grouped = waiting_in_groups(client, [(job.job_id, job.origin) for job in unlisted])
    return found + [job for job in unlisted if job.job_id not in grouped]


def _enqueued(heads: dict[str, bytes | None], client: redis.Redis) -> dict[str, str]:
    """Returns when the first job of each queue was enqueued; queues without jobs are left out."""
    known = {origin: head for origin, head in heads.items() if head is not None}
    with client.pipeline(transaction=False) as pipeline:
        for head in known.values():
            pipeline.hmget(job_key(as_text(head)), *_SINCE)
        return {
            origin: as_text(at or since or b"~") for origin, (at, since) in zip(known, pipeline.execute(), strict=True)
        }


def lost(seen: Seen) -> Iterator[Finding]:
    """Reports jobs with the status of a waiting or running one that are in no list, which no worker would run."""
    if seen.lost:
        names = ", ".join(job.job_id for job in seen.lost[:_NAMED])
        said = f"{len(seen.lost):,} of {seen.summary} are in no list, such as {names} (status {seen.lost[0].status})"
        fix = "rqjobs jobs run-now ID; a stock rq worker loses jobs when it is killed, rqjobs worker does not"
        yield fault("", said, fix)
    else:
        yield fine("", seen.summary)


def serializer(seen: Seen) -> Iterator[Finding]:
    """Reports jobs enqueued with RQ's default serializer, pickle, which our workers refuse."""
    if seen.pickled:
        names = ", ".join(seen.pickled[:_NAMED])
        fix = "enqueue with rqjobs, or Queue(..., serializer=JSONSerializer)"
        yield fault("", f"{len(seen.pickled):,} jobs are pickled, such as {names}; they will be refused", fix)


def functions(seen: Seen) -> Iterator[Finding]:
    """Reports jobs in our queues with a function that our workers do not run."""
    for name, number in seen.unknown.items():
        fix = "register it: rqjobs.broker.rq_schema.allow, in a module of RQJOBS_IMPORT"
        yield fault("", f"{number:,} jobs call {name[:80]!r}, which is not registered; they will be refused", fix)
