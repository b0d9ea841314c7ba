"""The head of a batch: its record and the jobs that wait for it, encoded for the scripts and for the outbox."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Literal

import redis

from rqjobs.broker import keys
from rqjobs.broker.job_signing import FIELD, sign, signs_jobs
from rqjobs.broker.job_writer import DESTINATION, Entry, Kind
from rqjobs.broker.rq_schema import BATCH_FIELD, pack_data, run_script
from rqjobs.broker.rq_types import as_text
from rqjobs.policies import base_queue

ROW_LANE = "(batch)"
"""The lane of an outbox row that is the head or the end of a batch instead of a job."""

Role = Literal["then", "on_dead", "next"]


@dataclass(frozen=True, slots=True)
class Follower:
    """A job that is written together with the batch, and enqueued later."""

    role: Role
    """When it is enqueued; ``next``: it is a job of a chain, and starts when the one before is done."""
    job_id: str
    lane: str
    wait: str
    """"" if it runs at once when it is enqueued; otherwise the seconds of its delay, or ``@`` and Unix seconds."""
    fields: dict[str, str | int]
    """The fields of its hash; ``data`` as text."""

    @classmethod
    def of(cls, role: Role, entry: Entry, batch_id: str) -> Follower:
        """Returns the follower for the job of ``entry``."""
        wait = f"@{entry.at!r}" if entry.at is not None else "" if entry.delay is None else repr(entry.delay)
        fields = {**entry.kind.fields, "status": "deferred", "created_at": entry.created_at}
        fields |= {"description": entry.description, "data": entry.data.decode()}
        if entry.destination:
            fields[DESTINATION] = entry.destination
        if role == "next":
            fields[BATCH_FIELD] = batch_id
        return cls(role, entry.job_id, entry.kind.lane, wait, fields)

    def entry(self) -> Entry:
        """Returns the job in the form that a test captures."""
        fields = {**self.fields}
        data, created_at, description = (str(fields.pop(name)) for name in ("data", "created_at", "description"))
        destination = str(fields.pop(DESTINATION, ""))
        at = float(self.wait[1:]) if self.wait.startswith("@") else None
        delay = float(self.wait) if self.wait and at is None else None
        return Entry(
            Kind(self.lane, False, fields),
            self.job_id,
            delay,
            data.encode(),
            created_at,
            description,
            "",
            at,
            destination,
        )

    def arguments(self) -> list[Any]:
        """Returns the arguments of batch_open.lua for it."""
        data = str(self.fields["data"]).encode()
        fields: dict[str, Any] = {**self.fields, "data": pack_data(data)}
        if signs_jobs():
            fields[FIELD] = sign(base_queue(self.lane), self.job_id, data)
        return [self.role, self.job_id, self.lane, self.wait, 2 * len(fields), *chain.from_iterable(fields.items())]


@dataclass(frozen=True, slots=True)
class BatchHead:
    """The record of a batch, and the jobs that wait for it."""

    batch_id: str
    expected: int | None
    """The number of members; None while it is unknown."""
    fields: dict[str, str]
    """The fields of the record: ``name``, ``tags`` as JSON, ``created`` in Unix seconds, ``chain``, ``direct``."""
    followers: list[Follower]

    def write(self, client: redis.Redis, *, strict: bool) -> list[str]:
        """Writes the head in one step; writing it again changes nothing.

        Args:
            client: the connection.
            strict: write nothing if the id of a follower is in use; otherwise such a follower is left out.

        Returns:
            The ids that are in use.
        """
        expected = "" if self.expected is None else self.expected
        values: list[Any] = [keys.PREFIX, self.batch_id, expected, "1" if strict else "", 2 * len(self.fields)]
        values += chain.from_iterable(self.fields.items())
        for follower in self.followers:
            values += follower.arguments()
        return [as_text(job_id) for job_id in run_script("batch_open", client, values)]


def seal(batch_id: str, expected: int, client: redis.Redis, *, late: bool = False) -> bool:
    """Records that all members have been sent; returns False if the batch was cancelled.

    ``late``: the head may arrive after this.
    """
    return bool(run_script("batch_seal", client, [keys.PREFIX, batch_id, expected, "1" if late else ""]))


def head_row(head: BatchHead) -> str:
    """Returns the head as the ``fields`` of an outbox row."""
    return json.dumps({"head": asdict(head)})


def seal_row(expected: int) -> str:
    """Returns the end of a batch as the ``fields`` of an outbox row."""
    return json.dumps({"expected": expected})


def write_row(batch_id: str, fields: str, client: redis.Redis) -> list[str]:
    """Writes an outbox row with the lane ROW_LANE to Redis; returns the ids that are in use."""
    content = json.loads(fields)
    if "head" not in content:
        seal(batch_id, content["expected"], client, late=True)
        return []
    head = content["head"]
    head["followers"] = [Follower(**follower) for follower in head["followers"]]
    return BatchHead(**head).write(client, strict=False)
