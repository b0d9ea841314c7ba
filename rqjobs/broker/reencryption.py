"""Encrypts all stored secrets again under the current key: in the database, and in the jobs in Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import redis
from sqlalchemy import Engine, select, update

from rqjobs.broker.connection import client_of
from rqjobs.broker.job_signing import FIELD, is_signed, sign
from rqjobs.broker.rq_schema import encode_data, job_key, key, pack_data, read_call, run_script, unpack_data
from rqjobs.config.encryption import Keyring, Store, keyring
from rqjobs.database import get_engine
from rqjobs.database.outbox import outbox
from rqjobs.database.schema import ensure_schema
from rqjobs.database.webhook_endpoints import encrypted
from rqjobs.database.webhook_tables import deliveries, endpoints
from rqjobs.errors import InvalidJob, UnknownQueue
from rqjobs.jobs import JobModel, WebhookJob
from rqjobs.jobs.at_rest import encrypt_job
from rqjobs.policies import base_queue, get_policy

_PAGE = 500
_WITH_HEADERS = '%"headers":%'


@dataclass
class Area:
    """The counts for one store."""

    name: str
    """``endpoints``, ``deliveries`` (the log), ``outbox`` or ``jobs`` (in Redis)."""
    current: int = 0
    """Records whose secrets are all encrypted under the current key already."""
    changed: int = 0
    """Records that were encrypted again, or would be without ``dry_run``."""
    unreadable: int = 0
    """Records with a secret that no key of this process decrypts; they are unchanged."""
    clear: int = 0
    """Records with an unencrypted secret, in a store without encryption (rqjobs.config.encryption.keyring)."""

    def count(self, before: Iterable[str], after: Iterable[str], ring: Keyring) -> bool:
        """Counts one record by its secrets ``before`` and ``after``; returns whether it must be written."""
        before, after = list(before), list(after)
        if before != after:
            self.changed += 1
        elif all(map(ring.is_current, after)):
            self.current += 1
        elif ring.stores.isdisjoint({"redis" if self.name in ("outbox", "jobs") else "database"}):
            self.clear += 1
        else:
            self.unreadable += 1
        return before != after


def reencrypt(
    *, dry_run: bool = False, connection: redis.Redis | None = None, engine: Engine | None = None
) -> list[Area]:
    """Encrypts every secret under the current key; safe while workers run, and can be repeated.

    All processes must have the new key first: secrets that a process with the old key writes stay under the old key.

    Args:
        dry_run: only count.
        connection: another Redis than that of REDIS_URL.
        engine: another database than that at DATABASE_URL.

    Raises:
        RedisUnavailable: Redis does not answer.
        DatabaseUnavailable: the database does not answer.
    """
    database = engine or get_engine()
    ensure_schema(database)
    # In the order in which a job moves: from the outbox to Redis, and from there into the log.
    return [
        _outbox(database, dry_run=dry_run),
        _jobs(client_of(connection), dry_run=dry_run),
        _deliveries(database, dry_run=dry_run),
        _endpoints(database, dry_run=dry_run),
    ]


def _texts(job: JobModel) -> list[str]:
    return list(getattr(job, str(job.encrypted_field)).values())


def _again(area: Area, job: JobModel, job_id: str, store: Store) -> JobModel | None:
    """Returns the job encrypted under the current key; None if it needs no change."""
    if not _texts(job):
        return None
    found = encrypt_job(job, job_id, store)
    return found if area.count(_texts(job), _texts(found), keyring()) else None


def _data_again(area: Area, data: bytes, job_id: str) -> bytes | None:
    """Returns the data of a job encrypted under the current key; None if it needs no change."""
    try:
        _function, _instance, (queue, payload), _options = read_call(data)
        job = get_policy(queue).job_type.parse(payload)
    except (ValueError, TypeError, LookupError, RecursionError, InvalidJob, UnknownQueue):
        return None  # forged, or not ours
    if job.encrypted_field is None or (found := _again(area, job, job_id, "redis")) is None:
        return None
    return encode_data(queue, found.dump_json())


def _outbox(engine: Engine, *, dry_run: bool) -> Area:
    area, last = Area("outbox"), ""
    while True:
        query = select(outbox.c.token, outbox.c.job_id, outbox.c.fields)
        query = query.where(outbox.c.token > last).order_by(outbox.c.token).limit(_PAGE)
        with engine.connect().execution_options(sqlite_read=True) as connection:
            rows = connection.execute(query).all()
        if not rows:
            return area
        last = rows[-1].token
        for row in rows:
            content = json.loads(row.fields)
            found = 0
            for job_id, fields in _jobs_of_row(row.job_id, content):
                if (data := _data_again(area, fields["data"].encode(), job_id)) is not None:
                    fields["data"] = data.decode()
                    found += 1
            if found and not dry_run:
                changed = json.dumps(content, ensure_ascii=False)
                with engine.begin() as connection:
                    this = (outbox.c.token == row.token) & (outbox.c.fields == row.fields)
                    connection.execute(update(outbox).where(this).values(fields=changed))


def _jobs_of_row(row_id: str, content: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Returns the id and the fields of each job in an outbox row: one job, the jobs that wait for a batch, or none."""
    if "data" in content:
        return [(row_id, content)]
    return [(each["job_id"], each["fields"]) for each in content.get("head", {}).get("followers", [])]


def _jobs(client: redis.Redis, *, dry_run: bool) -> Area:
    area = Area("jobs")
    for page in _pages(client.scan_iter(match=key("job", "*"), count=1000)):
        for job_id, data in _read(client, page):
            found = _data_again(area, data, job_id)
            if found is not None and not dry_run:
                signature = _signature_again(client, job_id, unpack_data(data), found)
                run_script("replace_data", client, [job_id, data, pack_data(found), signature])
    return area


def _signature_again(client: redis.Redis, job_id: str, data: bytes, found: bytes) -> str:
    """Returns the signature of the new data; an empty text if the old one was invalid, so a forged job stays forged."""
    signature, queue = client.hget(job_key(job_id), FIELD), str(read_call(data)[2][0])
    return sign(queue, job_id, found) if is_signed(cast("bytes | None", signature), queue, job_id, data) else ""


def _pages(names: Iterator[bytes]) -> Iterator[list[bytes]]:
    page: list[bytes] = []
    for name in names:
        page.append(name)
        if len(page) == _PAGE:
            yield page
            page = []
    yield page


def _read(client: redis.Redis, names: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yields the ids and the data of the jobs whose model has an encrypted field."""
    prefix = len(key("job", ""))
    origins = _ask(client, lambda pipeline, name: pipeline.hget(name, "origin"), names)
    meant = [name for name, origin in zip(names, origins, strict=True) if _may_have_secrets(origin)]
    for name, data in zip(meant, _ask(client, lambda pipeline, each: pipeline.hget(each, "data"), meant), strict=True):
        if isinstance(data, bytes):
            yield name[prefix:].decode(errors="surrogateescape"), data


def _ask(client: redis.Redis, command: Callable[[Any, bytes], object], names: list[bytes]) -> list[Any]:
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            command(pipeline, name)
        return pipeline.execute(raise_on_error=False)  # errors, such as a key of the wrong type, are results here


def _may_have_secrets(origin: object) -> bool:
    try:
        queue = base_queue(origin.decode()) if isinstance(origin, bytes) else ""
        return get_policy(queue).job_type.encrypted_field is not None
    except (UnknownQueue, UnicodeDecodeError):
        return False


def _deliveries(engine: Engine, *, dry_run: bool) -> Area:
    area, last = Area("deliveries"), 0
    while True:
        query = select(deliveries.c.id, deliveries.c.job_id, deliveries.c.job)
        query = query.where(deliveries.c.id > last, deliveries.c.job.like(_WITH_HEADERS))
        with engine.connect().execution_options(sqlite_read=True) as connection:
            rows = connection.execute(query.order_by(deliveries.c.id).limit(_PAGE)).all()
        if not rows:
            return area
        last = rows[-1].id
        changes = []
        for row in rows:
            try:
                job = WebhookJob.parse(json.loads(row.job))
            except ValueError:
                continue  # written by another version, or not one of ours
            if (found := _again(area, job, row.job_id, "database")) is not None:
                changes.append((row.id, found.model_dump_json(exclude_defaults=True)))
        if changes and not dry_run:
            with engine.begin() as connection:
                for number, text in changes:
                    connection.execute(update(deliveries).where(deliveries.c.id == number).values(job=text))


def _endpoints(engine: Engine, *, dry_run: bool) -> Area:
    area, ring = Area("endpoints"), keyring()
    query = select(endpoints.c.name, endpoints.c.secret, endpoints.c.previous_secret)
    with engine.connect().execution_options(sqlite_read=True) as connection:
        rows = connection.execute(query).all()
    for row in rows:
        kept = [word.partition("@") for word in (row.previous_secret or "").split()]
        before = [*([row.secret] if row.secret else []), *(secret for secret, _, _ in kept)]
        after = [encrypted(row.name, secret) for secret in before]
        if not before or not area.count(before, after, ring) or dry_run:
            continue
        secret, previous = (after[0], after[1:]) if row.secret else (None, after)
        words = [f"{secret}{at}{end}" for secret, (_, at, end) in zip(previous, kept, strict=True)]
        this = (endpoints.c.name == row.name) & (endpoints.c.secret == row.secret)
        with engine.begin() as connection:
            values = {"secret": secret, "previous_secret": " ".join(words) if words else row.previous_secret}
            connection.execute(update(endpoints).where(this).values(values))
    return area
