"""ManyChatSyncJob.data: typed for each (type, action); what the API cannot do is refused with the way out."""

import pytest

from rqjobs.config.settings import Settings
from rqjobs.errors import InvalidJob, InvalidSettings
from rqjobs.jobs import ManyChatSyncJob


def job(kind, action, data, **more):
    return ManyChatSyncJob(type=kind, action=action, tool_id="tool_1", data=data, **more)


@pytest.mark.parametrize(
    ("kind", "action", "data"),
    [
        ("contact", "create", {"email": "ada@example.com", "firstName": "Ada", "customFields": {"plan": "pro"}}),
        ("contact", "create", {"whatsapp_phone": "+1 (415) 555-0123", "tags": ["vip", 7]}),
        ("contact", "update", {"subscriberId": "42", "fields": {"a": None, "7": 1.5}, "tags": []}),
        ("contact", "update", {"manychatId": 42, "addTags": ["a"], "removeTags": ["b"]}),
        ("contact", "update", {"lookup": {"field": "crm_id", "value": 42}, "email": "new@example.com"}),
        ("contact", "delete", {"contactId": "42", "softDelete": True}),
        ("tag", "create", {"tagName": "vip"}),
        ("tag", "create", {"name": "vip", "email": "ada@example.com"}),
        ("tag", "update", {"phone": "+14155550123", "add": ["a"], "remove": [3]}),
        ("tag", "delete", {"name": "vip", "subscriber_id": 42}),
        ("tag", "delete", {"tagId": "3", "deleteFromPage": True}),
        ("field", "create", {"caption": "Plan", "type": "text", "description": "what they pay for"}),
        ("field", "update", {"subscriber_id": 42, "fields": {"plan": "pro"}}),
        ("field", "update", {"subscriber_id": 42, "fieldId": 3, "fieldValue": None}),
        ("field", "delete", {"subscriber_id": 42, "name": "plan"}),
    ],
)
def test_every_cell_takes_its_data_in_both_spellings(kind, action, data):
    made = job(kind, action, data)
    assert made.data == data
    assert ManyChatSyncJob.parse(made.dump()).details() == made.details()


@pytest.mark.parametrize(
    ("kind", "action", "data", "way_out"),
    [
        ("contact", "delete", {"subscriber_id": 42}, "soft_delete=true"),
        ("tag", "update", {"name": "old", "new_name": "new"}, "Create the new tag"),
        ("tag", "delete", {"name": "vip"}, "delete_from_page=true"),
        ("field", "update", {"name": "plan", "type": "number"}, "Create another field"),
        ("field", "delete", {"name": "plan"}, "Delete it in ManyChat"),
    ],
)
def test_actions_that_the_api_does_not_support_are_refused_with_an_alternative(kind, action, data, way_out):
    with pytest.raises(InvalidJob, match=f"ManyChatSyncJob: {kind} {action}: (unsupported|refused): .*{way_out}"):
        job(kind, action, data)


@pytest.mark.parametrize(
    ("kind", "action", "data", "faults"),
    [
        ("contact", "create", {}, ["which contact?"]),
        ("contact", "create", {"lookup": {"field": "f", "value": "v"}}, ["give one"]),
        ("contact", "create", {"email": "no", "phone": "12", "frist_name": "A", "tags": [True]},
         ["'data.email': not an address", "'data.phone': not a phone", "did you mean 'data.first_name'",
          "'data.tags.0': neither an id"]),
        ("contact", "update", {"subscriber_id": "x1", "fields": {"a": [1]}},
         ["'data.subscriber_id'", "'data.fields.a': a field's value"]),
        ("contact", "update", {"email": "a@b.example", "has_opt_in_sms": True}, ["consent_phrase"]),
        ("contact", "delete", {"subscriber_id": 42, "soft_delete": "yes"}, ["'data.soft_delete'"]),
        ("tag", "create", {}, ["'data.name' is missing"]),
        ("tag", "update", {"subscriber_id": 42}, ["'add' and/or 'remove'"]),
        ("tag", "delete", {"subscriber_id": 42, "name": "a", "tag_id": 3}, ["which tag?"]),
        ("tag", "delete", {"subscriber_id": 42, "name": "a", "delete_from_page": True}, ["not both"]),
        ("field", "create", {"name": "a", "type": "list"}, ["'data.type'"]),
        ("field", "update", {"subscriber_id": 42, "name": "a"}, ["'value' is missing"]),
        ("field", "update", {"subscriber_id": 42, "name": "a", "value": 1, "fields": {"b": 1}}, ["which field?"]),
        ("field", "delete", {"subscriber_id": 42}, ["which field?"]),
    ],
)  # fmt: skip
def test_every_fault_is_named_at_the_call(kind, action, data, faults):
    with pytest.raises(InvalidJob) as caught:
        job(kind, action, data)
    for fault in faults:
        assert fault in str(caught.value)


def test_only_changes_of_one_contact_can_be_merged():
    assert job("tag", "update", {"subscriber_id": 42, "add": ["a"]}, merge=True).merge
    for kind, action, data in [("tag", "create", {"name": "a"}), ("field", "create", {"name": "a", "type": "text"})]:
        with pytest.raises(InvalidJob, match="'merge'"):
            job(kind, action, data, merge=True)


def test_tokens_are_checked_and_never_shown(monkeypatch):
    monkeypatch.setenv("MANYCHAT_API_TOKENS", '{"tool_1": "1:hush99"}')
    settings = Settings.load()
    assert settings.manychat_api_tokens["tool_1"].get_secret_value() == "1:hush99"
    assert "hush99" not in repr(settings)
    monkeypatch.setenv("MANYCHAT_API_TOKEN", "1:hush\n99")
    monkeypatch.setenv("MANYCHAT_API_TOKENS", "1:hush99")
    with pytest.raises(InvalidSettings) as caught:
        Settings.load()
    assert "MANYCHAT_API_TOKEN: a token is one word" in str(caught.value)
    assert "MANYCHAT_API_TOKENS: not a JSON object" in str(caught.value)
    assert "hush" not in str(caught.value)
