"""ManyChat sync through real workers: the pace kept by all of them together, nothing lost, the state exact."""

import time

import pytest

from rqjobs import enqueue_many, queue_health
from rqjobs.jobs import ManyChatSyncJob
from tests.support.everything import everything
from tests.support.manychat import TOKEN, sandbox, state
from tests.support.workers import eventually


def contact(api, number):
    email = f"p{number}@example.com"
    made = api.account.call("POST", "subscriber/createSubscriber", {"email": email, "has_opt_in_email": True})
    return int(made["id"])


def updates(people, rounds, **options):
    """Merged ones set one field again and again, the others one field each: no order of theirs is promised."""
    merge = options.get("merge", False)
    return [
        ManyChatSyncJob(
            type="contact",
            action="update",
            tool_id="tool_1",
            data={"subscriber_id": person, "fields": {"Visits": number} if merge else {f"F{number}": number}},
            **options,
        )
        for number in range(rounds)
        for person in people
    ]


def queue():
    return next(one for one in queue_health() if one.name == "manychat-sync")


def through_workers(redis, workers, monkeypatch, *, people, rounds, processes, limit, **options):
    """Runs the updates and answers the sandbox, after checking that nothing was lost or too fast."""
    with sandbox(monkeypatch) as api:
        for name in ("Visits", *(f"F{number}" for number in range(rounds))):
            api.account.call("POST", "page/createCustomField", {"caption": name, "type": "number"})
        ids = [contact(api, number) for number in range(people)]
        for _ in range(processes):
            workers.start("manychat-sync")
        started = time.monotonic()
        enqueue_many(updates(ids, rounds, **options))
        eventually(lambda: queue().completed + queue().failed >= people * rounds, limit)
        took = time.monotonic() - started
        assert queue().failed == 0
        assert len(state(api)) == people
        last = {number: one["fields"] for number, one in enumerate(state(api).values())}
        print(f"{people * rounds} updates, {len(api.calls)} calls, {took:.1f} s, busiest {api.busiest('other')}")
        assert api.busiest("other") <= 10
        assert not [call for call in api.calls if call.status != 200]
        every = {"Visits": rounds - 1} if options.get("merge") else {f"F{number}": number for number in range(rounds)}
        assert last == dict.fromkeys(range(people), every)
        assert TOKEN.partition(":")[2] not in everything(redis) + workers.logs()
        return api


def test_merged_updates_through_two_workers(redis, workers, monkeypatch):
    api = through_workers(redis, workers, monkeypatch, people=20, rounds=5, processes=2, limit=90, merge=True)
    assert len(api.calls) < 50


@pytest.mark.slow
def test_500_updates_of_100_contacts_through_four_workers(redis, workers, monkeypatch):
    api = through_workers(redis, workers, monkeypatch, people=100, rounds=5, processes=4, limit=120, merge=True)
    assert len(api.calls) < 250


@pytest.mark.slow
def test_500_updates_of_100_contacts_unmerged_through_four_workers(redis, workers, monkeypatch):
    api = through_workers(redis, workers, monkeypatch, people=100, rounds=5, processes=4, limit=180)
    assert len([call for call in api.calls if call.kind == "other"]) == 500


@pytest.mark.slow
def test_a_worker_killed_while_it_applies_merged_changes_loses_none(redis, workers, monkeypatch):
    with sandbox(monkeypatch) as api:
        api.account.call("POST", "page/createCustomField", {"caption": "Visits", "type": "number"})
        ids = [contact(api, number) for number in range(30)]
        victim = workers.start("manychat-sync", RQJOBS_LEASE="3")
        enqueue_many(updates(ids, 5, merge=True))
        eventually(lambda: len(api.calls) > 8)
        victim.kill()
        workers.start("manychat-sync", RQJOBS_LEASE="3")
        eventually(lambda: queue().completed >= 150)
        assert queue().failed == 0
        assert all(one["fields"] == {"Visits": 4} for one in state(api).values())
        assert not redis.keys("*:merge:*:changes")
