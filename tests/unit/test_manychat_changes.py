"""Several changes of a contact as one: the same state as one after the other, whatever they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqjobs.errors import PermanentFailure
from rqjobs.jobs import ManyChatSyncJob
from rqjobs.processors.manychat.change import change_of, fit, net
from rqjobs.processors.manychat.records import CustomField

NAMES = st.sampled_from(["a", "b", "c"])
TAGS = st.lists(NAMES, max_size=3)
DATA = st.one_of(
    st.tuples(
        st.just("contact"), st.just("update"),
        st.fixed_dictionaries({}, optional={
            "first_name": NAMES, "last_name": NAMES, "tags": TAGS, "add_tags": TAGS, "remove_tags": TAGS,
            "fields": st.dictionaries(NAMES, st.none() | st.integers(0, 9)),
        }),
    ),
    st.tuples(st.just("tag"), st.just("create"), st.fixed_dictionaries({"name": NAMES})),
    st.tuples(st.just("tag"), st.just("delete"), st.fixed_dictionaries({"name": NAMES})),
    st.tuples(st.just("field"), st.just("update"), st.fixed_dictionaries({"name": NAMES, "value": st.integers(0, 9)})),
    st.tuples(st.just("field"), st.just("delete"), st.fixed_dictionaries({"name": NAMES})),
    st.tuples(st.just("contact"), st.just("delete"), st.just({"soft_delete": True})),
)  # fmt: skip


def applied(before, change):
    """What a change means, said once more and simply: profile, fields, tags."""
    profile, fields, tags = dict(before[0]), dict(before[1]), set(before[2])
    profile |= change.profile
    for name, value in change.fields:
        fields[name] = value
    if change.whole_tags is not None:
        tags = set(change.whole_tags)
    for name, add in change.tags:
        (tags.add if add else tags.discard)(name)
    return profile, {name: value for name, value in fields.items() if value is not None}, tags


@given(st.lists(DATA, min_size=1, max_size=8))
def test_the_net_change_is_all_changes_in_order(jobs):
    changes = [
        change_of(ManyChatSyncJob(type=kind, action=action, tool_id="t", data={"subscriber_id": 1, **data}).details())
        for kind, action, data in jobs
    ]
    state = one_by_one = ({}, {"a": 0}, {"a", "x"})
    for change in changes:
        one_by_one = applied(one_by_one, change)
    assert applied(state, net(changes)) == one_by_one


def test_ways_to_find_the_contact_are_joined():
    def change(**data):
        return change_of(ManyChatSyncJob(type="contact", action="create", tool_id="t", data=data).details())

    both = net([change(email="ada@example.com"), change(email="ADA@example.com", phone="+14155550123")])
    assert (both.contact.email, both.contact.phone) == ("ADA@example.com", "+14155550123")
    assert both.create


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param("number", "9" * 5000, id="longer than Python reads"),
        pytest.param("number", "9" * 400, id="integer beyond floats"),
        pytest.param("number", "1" * 400 + ".5", id="beyond floats"),
        ("number", float("inf")),
        (None, float("nan")),
        pytest.param("text", 10**5000, id="longer than Python writes"),
        ("date", "2026-02-30"),
        ("datetime", "2026-07-18T12:00:00"),
        ("datetime", "0001-01-01T00:00:00+05:00"),
    ],
)
def test_a_value_that_no_json_can_carry_is_of_another_type(kind, value):
    with pytest.raises(PermanentFailure, match="the custom field 'Age' is of type"):
        fit(value, CustomField(id=1, name="Age", type=kind))
