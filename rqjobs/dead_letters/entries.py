"""Reads the parts of dead letters that failure groups need: the fingerprint, and the fields of a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import redis

from rqjobs.broker.attempts import reason_of_entry
from rqjobs.broker.connection import client_of
from rqjobs.broker.rq_schema import decode_data, job_key, results_key
from rqjobs.broker.rq_types import as_text
from rqjobs.dead_letters.fingerprint import Fingerprint, fingerprint_of
from rqjobs.policies import base_queue


@dataclass(frozen=True, kw_only=True)
class Example:
    """One dead letter of a group, for a list."""

    job_id: str
    label: str
    reason: str
    failed_at: datetime | None


class Letter(NamedTuple):
    """The parts of a dead letter that groups need."""

    fingerprint: Fingerprint
    example: Example


def read(job_ids: Sequence[str], connection: redis.Redis) -> list[Letter]:
    """Returns these dead letters, without ids that have no job or an unreadable one.

    It reads only single fields: reading whole RQ jobs would take ten times as long.
    """
    with client_of(connection).pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.hmget(job_key(job_id), "origin", "data", "description", "ended_at")
            pipeline.xrevrange(results_key(job_id), count=1)
        answers = pipeline.execute(raise_on_error=False)
    letters = []
    for job_id, fields, results in zip(job_ids, answers[::2], answers[1::2], strict=True):
        if isinstance(fields, Exception) or isinstance(results, Exception):
            continue  # a key has the wrong type
        lane, data, description, ended = fields
        if data is None or lane is None:
            continue
        reason = reason_of_entry(results[0][1] if results else {})
        example = Example(
            job_id=job_id,
            label=description.decode(errors="replace") if description else job_id,
            reason=reason,
            failed_at=_moment(ended),
        )
        letters.append(
            Letter(fingerprint_of(base_queue(lane.decode(errors="replace")), reason, decode_data(data)), example)
        )
    return letters


def _moment(stamp: bytes | None) -> datetime | None:
    if not stamp:
        return None
    try:
        return datetime.fromisoformat(as_text(stamp))
    except ValueError:
        return None
