"""Every cell of (contact | tag | field) x (create | update | delete) against the sandbox: before and after."""

import pytest

from rqjobs.errors import PermanentFailure
from tests.support.manychat import run, sandbox, state


@pytest.fixture(params=["null"])
def played(redis, monkeypatch, request):
    with sandbox(monkeypatch, clearing=request.param) as api:
        api.account.fields = {
            number: {"id": number, "name": name, "type": kind, "description": ""}
            for number, name, kind in [(1, "Plan", "text"), (2, "Visits", "number"), (3, "Since", "date"),
                                       (4, "Seen", "datetime"), (5, "Active", "boolean")]
        }  # fmt: skip
        api.account.tags = {11: "vip", 12: "old"}
        api.account.call("POST", "subscriber/createSubscriber", {
            "email": "ada@example.com", "has_opt_in_email": True, "first_name": "Ada", "last_name": "Byron",
        })  # fmt: skip
        ada = next(iter(api.account.subscribers.values()))
        ada.tags, ada.fields = {12}, {1: "free"}
        yield api


ADA = {"first_name": "Ada", "last_name": "Byron", "fields": {"Plan": "free"}, "tags": {"old"}}


def ada_id(api):
    return next(iter(api.account.subscribers))


def paths(api):
    return [call.path.partition("/")[2] for call in api.calls]


def twice(api, *args, **more):
    """Runs the job, and again: the second run must change nothing."""
    first = run(*args, **more)
    after = (state(api), dict(api.account.tags), dict(api.account.fields))
    second = run(*args, job_id="job-1-again", **more)
    assert (state(api), dict(api.account.tags), dict(api.account.fields)) == after
    return first, second


def test_contact_create_makes_one_with_fields_and_tags(played):
    assert state(played) == {"ada@example.com": ADA}
    data = {"email": "bob@example.com", "phone": "+14155550123", "firstName": "Bob",
            "fields": {"plan": "pro", "Visits": "7"}, "tags": ["VIP", "new"]}  # fmt: skip
    first, second = twice(played, "contact", "create", data)
    assert state(played)["bob@example.com"] == {
        "first_name": "Bob", "fields": {"Plan": "pro", "Visits": 7}, "tags": {"vip", "new"}}  # fmt: skip
    assert state(played)["ada@example.com"] == ADA
    assert (first["outcome"], second["outcome"]) == ("created", "updated")
    assert first["tags"] == {"added": ["vip", "new"], "removed": []}
    assert second["tags"] == {"added": [], "removed": []}
    assert first["subscriber_id"] == second["subscriber_id"]


def test_contact_create_brings_one_that_is_there_to_the_state(played):
    first, _ = twice(played, "contact", "create", {"email": "ADA@example.com", "last_name": "Lovelace", "tags": [11]})
    assert first["outcome"] == "updated"
    assert state(played)["ADA@example.com"] == {**ADA, "last_name": "Lovelace", "tags": {"old", "vip"}}
    assert len(played.account.subscribers) == 1


def test_contact_create_by_whatsapp_mirrors_the_number_so_that_it_is_found_again(played):
    first, second = twice(played, "contact", "create", {"whatsapp_phone": "+4915112345678", "tags": ["vip"]})
    one = played.account.subscribers[int(first["subscriber_id"])]
    assert one.whatsapp_phone == one.profile["phone"] == "+4915112345678"
    assert one.profile["has_opt_in_sms"] is False
    assert second["subscriber_id"] == first["subscriber_id"]
    run("contact", "update", {"whatsappPhone": "+4915112345678", "firstName": "Wanda"})
    assert one.profile["first_name"] == "Wanda"


@pytest.mark.parametrize("name", [{}, {"first_name": "Wanda", "last_name": "Kay"}])
def test_a_contact_with_only_a_whatsapp_number_is_found_when_it_already_exists(played, name):
    played.account.call("POST", "subscriber/createSubscriber", {"whatsapp_phone": "+4915112345678", **name})
    first, _ = twice(played, "contact", "create", {"whatsapp_phone": "+4915112345678", "tags": ["vip"], **name})
    assert len(played.account.subscribers) == 2
    assert first["tags"]["added"] == ["vip"]


def test_an_existing_contact_that_cannot_be_found_fails_with_the_fix(played):
    played.account.call("POST", "subscriber/createSubscriber", {"whatsapp_phone": "+4915112345678", "first_name": "X"})
    with pytest.raises(
        PermanentFailure, match=r"WhatsApp ID already exists.*give its subscriber_id, or a lookup field"
    ):
        run("contact", "create", {"whatsapp_phone": "+4915112345678", "first_name": "Y"})


def test_a_contact_that_another_client_creates_at_the_same_time_is_updated(played, monkeypatch):
    from rqjobs.processors.manychat.client import ManyChat

    really, raced = ManyChat.find_by_email, []

    def find(api, email):
        found = really(api, email)
        if not raced:
            raced.append(
                played.account.call("POST", "subscriber/createSubscriber", {"email": email, "has_opt_in_email": True})
            )
        return found

    monkeypatch.setattr(ManyChat, "find_by_email", find)
    result = run("contact", "create", {"email": "eve@example.com", "first_name": "Eve"})
    assert (result["outcome"], result["subscriber_id"]) == ("updated", raced[0]["id"])
    assert state(played)["eve@example.com"]["first_name"] == "Eve"


@pytest.mark.parametrize("by", ["subscriber_id", "email", "phone", "lookup"])
def test_contact_update_finds_the_contact_every_way(played, by):
    ada = played.account.subscribers[ada_id(played)]
    ada.profile["phone"], ada.fields[2] = "+14155550123", 42
    reference = {
        "subscriber_id": {"subscriber_id": str(ada.id)},
        "email": {"email": "ada@example.com"},
        "phone": {"phone": "+1 415 555 0123"},
        "lookup": {"lookup": {"field": "visits", "value": 42}},
    }[by]
    twice(played, "contact", "update", {**reference, "first_name": "Augusta", "fields": {"Active": True}})
    assert state(played)["ada@example.com"] == {
        **ADA, "first_name": "Augusta", "fields": {"Plan": "free", "Visits": 42, "Active": True}}  # fmt: skip


def test_contact_update_sets_all_tags_as_a_difference(played):
    first, second = twice(played, "contact", "update", {"subscriber_id": ada_id(played), "tags": ["vip", "new"]})
    assert state(played)["ada@example.com"]["tags"] == {"vip", "new"}
    assert first["tags"] == {"added": ["vip", "new"], "removed": ["old"]}
    assert second["tags"] == {"added": [], "removed": []}
    run("contact", "update", {"email": "ada@example.com", "tags": []})
    assert state(played)["ada@example.com"]["tags"] == set()
    assert set(played.account.tags.values()) == {"vip", "old", "new"}


def test_an_update_of_a_missing_contact_is_permanent_and_names_the_fix(played):
    with pytest.raises(PermanentFailure, match="no such contact; a job of type contact, action create"):
        run("contact", "update", {"email": "nobody@example.com", "first_name": "N"})
    with pytest.raises(PermanentFailure, match="Subscriber does not exist"):
        run("contact", "update", {"subscriber_id": 999, "first_name": "N"})


def test_two_contacts_with_the_same_value_are_not_guessed_between(played):
    for email in ("a@example.com", "b@example.com"):
        run("contact", "create", {"email": email, "fields": {"Visits": 5}})
    with pytest.raises(PermanentFailure, match="2 contacts of ManyChat have 'Visits': give the subscriber_id"):
        run("contact", "update", {"lookup": {"field": "Visits", "value": 5}, "first_name": "?"})


def test_contact_soft_delete_opts_out_and_tags(played):
    twice(played, "contact", "delete", {"email": "ada@example.com", "soft_delete": True})
    ada = played.account.subscribers[ada_id(played)]
    assert ada.profile["has_opt_in_email"] is False
    assert ada.profile["has_opt_in_sms"] is False
    assert state(played)["ada@example.com"]["tags"] == {"old", "deleted"}


def test_tag_create(played):
    first, second = twice(played, "tag", "create", {"name": "new"})
    assert "new" in played.account.tags.values()
    assert (first["outcome"], second["outcome"]) == ("created", "exists")
    assert first["tag_id"] == second["tag_id"]
    assert run("tag", "create", {"name": "VIP"})["tag_id"] == "11"


def test_tag_create_with_a_contact_puts_it_on(played):
    twice(played, "tag", "create", {"name": "fresh", "subscriber_id": ada_id(played)})
    assert state(played)["ada@example.com"]["tags"] == {"old", "fresh"}


def test_a_tag_created_elsewhere_within_the_minute_is_found(played):
    run("tag", "create", {"name": "vip"})  # fills the cache
    played.account.call("POST", "page/createTag", {"name": "theirs"})
    run("tag", "update", {"email": "ada@example.com", "add": ["theirs"]})
    assert state(played)["ada@example.com"]["tags"] == {"old", "theirs"}
    assert paths(played).count("createTag") == 0


def test_a_tag_deleted_elsewhere_within_the_minute_is_made_again(played):
    run("tag", "create", {"name": "vip"})
    played.account.call("POST", "page/removeTag", {"tag_id": 11})
    run("tag", "update", {"subscriber_id": ada_id(played), "add": ["vip"]})
    assert state(played)["ada@example.com"]["tags"] == {"old", "vip"}


def test_tag_update_adds_and_removes(played):
    first, _ = twice(
        played, "tag", "update", {"subscriberId": ada_id(played), "add": ["vip"], "remove": ["OLD", "none"]}
    )
    assert state(played)["ada@example.com"]["tags"] == {"vip"}
    assert first["tags"] == {"added": ["vip"], "removed": ["old"]}


def test_tag_delete_takes_it_off_one_contact(played):
    twice(played, "tag", "delete", {"email": "ada@example.com", "tag_id": 12})
    assert state(played)["ada@example.com"]["tags"] == set()
    assert 12 in played.account.tags


def test_tag_delete_from_the_page_takes_it_off_everyone(played):
    first, second = twice(played, "tag", "delete", {"name": "old", "delete_from_page": True})
    assert played.account.tags == {11: "vip"}
    assert state(played)["ada@example.com"]["tags"] == set()
    assert (first["outcome"], second["outcome"]) == ("deleted", "absent")


def test_field_create(played):
    first, second = twice(played, "field", "create", {"name": "Birthday", "type": "date", "description": "of birth"})
    assert played.account.fields[int(first["field_id"])]["type"] == "date"
    assert (first["outcome"], second["outcome"]) == ("created", "exists")
    assert run("field", "create", {"name": "PLAN", "type": "text"})["field_id"] == "1"
    with pytest.raises(PermanentFailure, match="has the field 'Plan' as text, and a definition cannot be changed"):
        run("field", "create", {"name": "plan", "type": "number"})


def test_field_update_sets_values_by_name_or_id(played):
    values = {"Plan": "pro", "2": 3.5, "since": "2026-07-18", "Seen": "2026-07-18T14:00:00+02:00", "Active": False}
    twice(played, "field", "update", {"subscriber_id": ada_id(played), "fields": values})
    assert state(played)["ada@example.com"]["fields"] == {
        "Plan": "pro",
        "Visits": 3.5,
        "Since": "2026-07-18",
        "Seen": "2026-07-18T12:00:00+00:00",
        "Active": False,
    }
    run("field", "update", {"email": "ada@example.com", "field_id": 1, "value": "max"})
    assert state(played)["ada@example.com"]["fields"]["Plan"] == "max"


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [("Visits", "many", "give a number"), ("Visits", True, "give a number"), ("Active", "yes", "give True or False"),
     ("Since", "18.7.2026", "give a day"), ("Seen", "2026-07-18T12:00:00", "with its offset"), ("Plan", True, "string"),
     ("Nope", 1, "no custom field 'Nope': create it")],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_permanent_and_names_the_fix(played, field, value, fix):
    with pytest.raises(PermanentFailure, match=fix):
        run("field", "update", {"subscriber_id": ada_id(played), "fields": {field: value}})
    assert state(played)["ada@example.com"] == ADA


def test_many_fields_are_sent_in_chunks(played):
    for number in range(100, 145):
        played.account.fields[number] = {"id": number, "name": f"f{number}", "type": "number", "description": ""}
    values = {f"f{number}": number for number in range(100, 145)}
    run("field", "update", {"subscriber_id": ada_id(played), "fields": values})
    assert state(played)["ada@example.com"]["fields"] == {"Plan": "free", **values}
    assert paths(played).count("setCustomFields") == 3


@pytest.mark.parametrize("played", ["null", "empty", "silent"], indirect=True)
def test_field_delete_clears_the_value_whichever_way_the_api_does_it(played):
    twice(played, "field", "delete", {"subscriber_id": ada_id(played), "name": "Plan"})
    assert state(played)["ada@example.com"]["fields"] == {}
    assert 1 in played.account.fields


def test_tags_and_fields_are_read_once_for_all_workers(played):
    for _ in range(3):
        run("contact", "update", {"subscriber_id": ada_id(played), "fields": {"Plan": "x"}, "add_tags": ["vip"]})
    assert paths(played).count("getTags") == paths(played).count("getCustomFields") == 1
