"""merge=True: waiting changes of one contact become one; nothing is lost, whoever dies when."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from rqjobs import enqueue_manychat_sync
from rqjobs.attempt import Attempt
from rqjobs.broker import job_actions
from rqjobs.broker.rq_schema import job_key
from rqjobs.errors import PermanentFailure, RetryLater
from rqjobs.processors.manychat import admit, sync
from rqjobs.processors.manychat.contacts import Contacts
from rqjobs.testing.sandbox.manychat import Fault
from tests.support.manychat import drive, job, known, run, sandbox, state

WRITES = ("updateSubscriber", "setCustomFields", "addTag", "removeTag")


@pytest.fixture
def played(redis, monkeypatch):
    monkeypatch.setenv("MANYCHAT_MERGE_WINDOW", "300ms")
    with sandbox(monkeypatch) as api:
        for name, kind in [("Plan", "text"), ("Visits", "number")]:
            api.account.call("POST", "page/createCustomField", {"caption": name, "type": kind})
        for tag in ("a", "b", "c"):
            api.account.call("POST", "page/createTag", {"name": tag})
        api.ada = contact(api, "ada@example.com")
        yield api


def contact(api, email):
    made = api.account.call("POST", "subscriber/createSubscriber", {"email": email, "has_opt_in_email": True})
    return int(made["id"])


def update(api, **data):
    return job("contact", "update", {"subscriber_id": api.ada, **data}, merge=True)


def writes(api):
    return [call.path.partition("/")[2] for call in api.calls if call.path.endswith(WRITES)]


def ada(api):
    return state(api)["ada@example.com"]


def test_ten_updates_in_a_second_cost_one_set_of_calls(played):
    jobs = {f"job-{n}": update(played, first_name=f"Ada {n}", fields={"Visits": n}) for n in range(6)}
    jobs["add"] = job("tag", "update", {"subscriber_id": played.ada, "add": ["a", "b"]}, merge=True)
    jobs["remove"] = job("tag", "delete", {"subscriber_id": played.ada, "name": "A"}, merge=True)
    jobs["field"] = job("field", "update", {"subscriber_id": played.ada, "name": "plan", "value": "pro"}, merge=True)
    jobs["last"] = update(played, fields={"visits": 99})
    outcomes = drive(jobs)
    assert ada(played) == {"first_name": "Ada 5", "fields": {"Plan": "pro", "Visits": 99}, "tags": {"b"}}
    assert sorted(writes(played)) == ["addTag", "setCustomFields", "updateSubscriber"]
    (applier,) = [name for name, outcome in outcomes.items() if "merged" in outcome]
    assert len(outcomes[applier]["merged"]) == 9
    assert {outcome["merged_into"] for name, outcome in outcomes.items() if name != applier} == {applier}


def test_a_change_that_is_refused_fails_alone(played):
    jobs = {
        "good-1": update(played, fields={"Plan": "pro"}),
        "bad": update(played, email="x@mail.invalid"),
        "ugly": update(played, fields={"Nope": 1}),
        "good-2": update(played, fields={"Plan": "max"}, add_tags=["a"]),
    }
    outcomes = drive(jobs)
    assert ada(played) == {"fields": {"Plan": "max"}, "tags": {"a"}}
    assert "The email is invalid" in outcomes["bad"].reason
    assert "no custom field 'Nope'" in outcomes["ugly"].reason
    assert not isinstance(outcomes["good-1"], PermanentFailure)
    assert not isinstance(outcomes["good-2"], PermanentFailure)


def test_a_dead_job_that_is_requeued_tries_again(played):
    attempt = Attempt(job_id="bad", queue="manychat-sync")
    for _ in range(2):
        with pytest.raises(PermanentFailure, match="Nope"):
            sync(update(played, fields={"Nope": 1}), attempt)
    jobs = {"one": update(played, fields={"Nope": 1}), "two": update(played, fields={"Nope": 2})}
    assert all("Nope" in outcome.reason for outcome in drive(jobs).values())
    played.account.call("POST", "page/createCustomField", {"caption": "Nope", "type": "number"})
    sync(update(played, fields={"Nope": 1}), attempt)
    assert ada(played)["fields"] == {"Nope": 1}


class Killed(BaseException):
    """The worker is gone: nothing after it runs in this process."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_that_dies_loses_nothing(played, monkeypatch, when):
    """It dies after it took all changes, and either before or after it applied them."""
    now = datetime.now(UTC)
    first, second = (
        Attempt(
            job_id=name, queue="manychat-sync", enqueued_at=now + timedelta(seconds=n), timeout=timedelta(seconds=9)
        )
        for n, name in enumerate(("first", "second"))
    )
    jobs = [
        (update(played, fields={"Plan": "one", "Visits": 1}), first),
        (update(played, fields={"Plan": "two"}), second),
    ]
    known(second)
    assert all(hold is not None for hold in admit(jobs))
    time.sleep(0.35)
    chosen, other = admit(jobs)
    assert chosen is None
    assert other is not None
    really = Contacts.apply

    def dies(self, change):
        if when == "after":
            really(self, change)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Contacts, "apply", dies)
        with pytest.raises(Killed):
            sync(*jobs[0])
    with pytest.raises(RetryLater):  # the dead one holds the lock until its time limit
        sync(*jobs[1])
    assert sync(*jobs[0])["merged"] == ["second"]  # its lease is over: it runs again
    assert ada(played)["fields"] == {"Plan": "two", "Visits": 1}
    assert sync(*jobs[1])["merged_into"] == "first"
    assert sync(*jobs[0])["merged_into"] == "first"  # died before RQ heard of the outcome
    assert ada(played)["fields"] == {"Plan": "two", "Visits": 1}


def test_when_the_job_that_died_never_comes_back_another_takes_its_change(played, redis):
    gone = Attempt(job_id="gone", queue="manychat-sync", of=3, enqueued_at=datetime.now(UTC) - timedelta(minutes=1))
    played.fail_next("subscriber/setCustomFields", Fault(500))
    with pytest.raises(Exception, match="HTTP 500"):
        sync(update(played, fields={"Plan": "one", "Visits": 1}), known(gone))
    outcomes = drive({"next": update(played, fields={"Plan": "two"})})
    assert outcomes["next"]["merged"] == ["gone"]
    assert ada(played)["fields"] == {"Plan": "two", "Visits": 1}


def test_a_job_that_used_up_its_attempts_takes_its_change_along(played, redis):
    played.fail_next("page/getCustomFields", Fault(200, '{"status":"success","data":{"odd":1}}'))
    last = Attempt(job_id="dead", queue="manychat-sync", number=3, of=3)
    with pytest.raises(Exception, match="of the shape"):
        sync(update(played, fields={"Visits": 1}), known(last))
    assert drive({"next": update(played, fields={"Plan": "two"})})["next"]["merged"] == []
    assert ada(played)["fields"] == {"Plan": "two"}


@pytest.mark.parametrize("how", ["deleted", "canceled", "id used again", "overwritten", "garbled"])
def test_the_change_of_a_job_that_will_not_run_is_not_applied(played, redis, how):
    change = update(played, first_name="CANCELLED")
    gone = enqueue_manychat_sync(change, job_id="gone")
    attempt = Attempt(job_id=gone.id, queue="manychat-sync", enqueued_at=gone.created_at)
    assert admit([(change, attempt)]) != [None]  # its change waits for others
    if how == "canceled":
        gone.cancel()
    else:
        assert job_actions.delete(gone.id)
    if how == "overwritten":
        redis.set(job_key("gone"), "another type")
    if how == "garbled":
        redis.hset(job_key("gone"), mapping={"created_at": "today", "status": "queued"})
    if how == "id used again":
        enqueue_manychat_sync(job("tag", "create", {"name": "d"}), job_id="gone")
    waits = enqueue_manychat_sync(update(played, last_name="Byron"))
    attempt = Attempt(job_id=waits.id, queue="manychat-sync", enqueued_at=waits.created_at)
    admit([(update(played, last_name="Byron"), attempt)])
    outcomes = drive({"next": update(played, fields={"Plan": "two"})})
    assert outcomes["next"]["merged"] == [waits.id]
    assert ada(played) == {"last_name": "Byron", "fields": {"Plan": "two"}, "tags": set()}
    assert not redis.keys("*:changes")


def test_the_last_change_of_a_tag_wins_by_name_and_by_id(played):
    by_id = next(tag_id for tag_id, name in played.account.tags.items() if name == "a")
    wishes = [("add", "a"), ("remove", int(by_id)), ("add", "A")]
    drive(
        {
            f"job-{n}": job("tag", "update", {"subscriber_id": played.ada, word: [tag]}, merge=True)
            for n, (word, tag) in enumerate(wishes)
        }
    )
    assert ada(played)["tags"] == {"a"}


def test_changes_of_contacts_given_by_different_fields_are_not_merged(played):
    for field, value in [("a", "b=c"), ("a=b", "c")]:
        played.account.call("POST", "page/createCustomField", {"caption": field, "type": "text"})
        run("contact", "create", {"email": f"{field}@example.com", "fields": {field: value}})
    jobs = {
        "one": job("contact", "update", {"lookup": {"field": "a", "value": "b=c"}, "first_name": "Ada"}, merge=True),
        "two": job("contact", "update", {"lookup": {"field": "a=b", "value": "c"}, "first_name": "Bob"}, merge=True),
    }
    assert [outcome["merged"] for outcome in drive(jobs).values()] == [[], []]
    assert [state(played)[f"{field}@example.com"]["first_name"] for field in ("a", "a=b")] == ["Ada", "Bob"]


def test_an_id_may_begin_as_our_own_fields_do(played):
    outcomes = drive({"_first": update(played, first_name="Ada"), "_x": update(played, last_name="Byron")})
    assert sorted(one.get("merged", []) for one in outcomes.values()) in ([[], ["_x"]], [[], ["_first"]])
    assert ada(played) == {"first_name": "Ada", "last_name": "Byron", "fields": {}, "tags": set()}


def test_an_id_used_again_is_another_change(played):
    for value in ("one", "two", "one"):
        result = run("contact", "update", {"subscriber_id": played.ada, "fields": {"Plan": value}}, merge=True)
        assert result["outcome"] == "updated"
        assert ada(played)["fields"] == {"Plan": value}


def test_nothing_stays_in_redis_but_outcomes_that_expire(played, redis):
    drive({f"job-{n}": update(played, fields={"Visits": n}) for n in range(4)})
    left = {key.decode(): redis.ttl(key) for key in redis.keys("*")}
    assert all(0 < ttl <= 3700 for ttl in left.values()), left
    assert not [key for key in left if key.endswith((":changes", ":lock"))]


def test_many_updates_on_threads_keep_the_pace_and_end_exact(played, configure):
    configure(MANYCHAT_MERGE_WINDOW="1s")  # a hundred have to join in it
    people = [contact(played, f"p{n}@example.com") for n in range(20)]
    jobs = {
        f"job-{n}-{person}": job("contact", "update", {"subscriber_id": person, "fields": {"Visits": n}}, merge=True)
        for n in range(5)
        for person in people
    }
    outcomes = drive(jobs)
    assert len(outcomes) == 100
    assert all(state(played)[f"p{n}@example.com"]["fields"] == {"Visits": 4} for n in range(20))
    assert played.busiest("other") <= 10
    assert not [call for call in played.calls if call.status == 429]
    assert len(writes(played)) <= 40
