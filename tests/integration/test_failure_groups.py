"""Failure groups count every dead letter that is kept, and a search looks through all of them."""

from __future__ import annotations

import json

import pytest
import redis as redis_py
from click.testing import CliRunner
from flask.testing import FlaskClient

from rqjobs import enqueue
from rqjobs.broker.rq_schema import key
from rqjobs.cli import cli
from rqjobs.dead_letters import bulk_requeue
from rqjobs.dead_letters import groups as failure_groups
from rqjobs.dead_letters import index as dead_index
from tests.support.dashboard import webhook
from tests.support.hostile import kill

MANY = 600  # more than were looked at once


def plant(redis: redis_py.Redis, number: int, error: str, host: str, ago: float) -> list[str]:
    """So many dead letters, copied from one."""
    first = enqueue(webhook(1, host))
    kill(first.id, "webhooks", error, redis, ago=ago)
    score = redis.zscore(key("failed", "webhooks"), first.id)
    ids = [f"{host.partition('.')[0]}-{n}" for n in range(number - 1)]
    with redis.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.copy(key("job", first.id), key("job", job_id))
            pipeline.copy(key("results", first.id), key("results", job_id))
            pipeline.zadd(key("failed", "webhooks"), {job_id: score})
        pipeline.execute()
    return [first.id, *ids]


def test_every_kept_dead_letter_is_counted_and_found(redis: redis_py.Redis, client: FlaskClient) -> None:
    plant(redis, MANY, "ValueError: the endpoint answered 404", "acme.example", 3600)
    plant(redis, 400, "ValueError: the endpoint answered 401", "initech.example", 1800)
    plant(redis, MANY, "ConnectionError: refused", "globex.example", 5)
    while (found := failure_groups.look()).grouped < found.total:
        pass  # the index is built a thousand entries at a look
    assert [(group.count, group.destination) for group in found.groups] == [
        (MANY, "globex.example"), (MANY, "acme.example"), (400, "initech.example"),
    ]  # fmt: skip
    for words, count in (("acme", MANY), ("answered 401", 400), ("GLOBEX-17", 111), ("refused", MANY), ("nothing", 0)):
        assert sum(group.count for group in failure_groups.look(text=words).groups) == (
            len([n for n in range(MANY - 1) if str(n).startswith("17")]) if words == "GLOBEX-17" else count
        ), words
    page = client.get("/dead/").text
    assert all(text in page for text in ("answered 404", "answered 401", "refused"))
    assert "acme.example" in client.get("/dead/?find=acme").text
    groups = json.loads(CliRunner().invoke(cli, ["failed", "groups", "--json"]).output)
    assert [group["count"] for group in groups] == [MANY, MANY, 400]
    assert client.get(f"/dead/groups/{groups[-1]['group']}").status_code == 200


def test_numbers_that_vary_make_no_groups(redis: redis_py.Redis) -> None:
    for number in (7, 37, 404, 999, 1036):
        job = enqueue(webhook(number))
        kill(job.id, "webhooks", f"FileNotFoundError: no file image-{number}.png", redis)
    (group,) = failure_groups.look().groups
    assert (group.count, group.fingerprint.error) == (5, "FileNotFoundError: no file image-….png")
    assert group.examples[0].reason.startswith("FileNotFoundError: no file image-")


def test_newest_and_oldest_are_those_of_the_group(redis: redis_py.Redis) -> None:
    ids = []
    for ago in (50.0, 10.0, 4000.0, 300.0):
        ids.append(enqueue(webhook()).id)
        kill(ids[-1], "webhooks", "ValueError: boom", redis, ago=ago)
    (group,) = failure_groups.look().groups
    assert [example.job_id for example in group.examples] == [ids[1], ids[0], ids[3], ids[2]]
    assert (group.newest, group.oldest) == (group.examples[0].failed_at, group.examples[-1].failed_at)


def test_an_index_of_an_earlier_version_is_built_anew(redis: redis_py.Redis) -> None:
    """It told causes apart otherwise, so a group of today would not be found in it."""
    ids = plant(redis, 3, "ValueError: image-1.png", "acme.example", 5)
    redis.zadd("rqjobs:dead:causes:webhooks", dict.fromkeys(ids, 12345))
    (group,) = failure_groups.look().groups
    assert not redis.exists("rqjobs:dead:causes:webhooks")
    ended = bulk_requeue.run(bulk_requeue.start(group.fingerprint.id, "t", "purge", connection=redis), redis)
    assert ended.message == "3 jobs were deleted"


def test_more_groups_than_are_described_are_counted(redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_groups, "MOST", 2)
    for name in ("a", "b", "c", "d"):
        job = enqueue(webhook())
        kill(job.id, "webhooks", f"ValueError: {name * 3}", redis)
    monkeypatch.setattr(failure_groups, "_PAGE", 2)
    found = failure_groups.look()
    assert (len(found.groups), found.more, found.grouped) == (2, 2, 4)
    dead_index.sync(["webhooks"], redis)
    assert failure_groups.find("no id") is None
