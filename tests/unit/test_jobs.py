"""The job models: both spellings, every fault named, nothing that JSON would change."""

import json
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqjobs.errors import InvalidJob
from rqjobs.jobs import DataExportJob, EmailJob, JobModel, ManyChatSyncJob, QRAnalyticsJob, WebhookJob
from rqjobs.jobs.base import read_json

WEBHOOK = {"webhook_id": "wh_1", "event": "qr.scanned", "url": "https://api.example.com/hook", "payload": {"a": 1}}


def faults_of(model, **data):
    with pytest.raises(InvalidJob) as caught:
        model(**data)
    return caught.value.faults


def test_both_spellings_are_the_same_job():
    camel = WebhookJob(webhookId="wh_1", event="qr.scanned", url=WEBHOOK["url"], payload={"a": 1})
    assert camel == WebhookJob(**WEBHOOK)
    assert DataExportJob(userId="1", exportType="csv", dataType="contacts").filters == {}


def test_a_job_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        WebhookJob(**WEBHOOK).url = "https://elsewhere.example"


def test_every_fault_is_named_with_its_fix():
    faults = faults_of(WebhookJob, webhook_id=1, event="qr scanned", ulr="x", payload={"when": datetime.now(UTC)})
    assert len(faults) == 5
    assert "'url' is missing" in faults
    assert "unknown field 'ulr', did you mean 'url'?" in faults
    assert "'payload.when': a datetime is not JSON; pass its .isoformat()" in faults


@pytest.mark.parametrize(
    "url",
    ["ftp://example.com", "example.com", "https://", "http://user:pw@example.com", "https://a b.example",
     "https://example.com\n", "http://[::1", "https://example.com:99999", "javascript:alert(1)", "https://e.com\\@f.com"],
)  # fmt: skip
def test_malformed_urls_are_refused(url):
    assert any("'url'" in fault for fault in faults_of(WebhookJob, **{**WEBHOOK, "url": url}))


@pytest.mark.parametrize(
    "headers",
    [{"Host": "x"}, {"webhook-id": "x"}, {"Webhook-Signature": "x"}, {"X-Webhook-Signature": "x"}, {"A": "b\r\nC: d"},
     {"A B": "c"}, {"Content-Length": "1"}, {"": "x"}, {"A": "é"}],
)  # fmt: skip
def test_headers_cannot_break_or_overwrite_ours(headers):
    assert any("'headers'" in fault for fault in faults_of(WebhookJob, **WEBHOOK, headers=headers))


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1, 2}, b"x", object(), "\ud800", {1: 2}, (1, 2), datetime.now(UTC),
     pytest.param(10**4300, id="4301 digits"), pytest.param(-(10**5000), id="negative")],
)  # fmt: skip
def test_values_that_json_cannot_represent_are_refused(value):
    assert any("payload" in fault for fault in faults_of(WebhookJob, **{**WEBHOOK, "payload": {"deep": [value]}}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON))
def test_json_values_survive_the_queue(payload):
    job = WebhookJob(**{**WEBHOOK, "payload": payload})
    assert WebhookJob.parse(json.loads(json.dumps(job.dump()))) == job


def test_the_longest_number_survives_the_queue():
    job = WebhookJob(**{**WEBHOOK, "payload": {"n": 10**4300 - 1, "m": 1 - 10**4300}})
    assert WebhookJob.parse(read_json(job.dump_json())) == job


@pytest.mark.parametrize(
    ("model", "data", "field"),
    [
        (ManyChatSyncJob, {"type": "flow", "action": "create", "tool_id": "t", "data": {}}, "type"),
        (ManyChatSyncJob, {"type": "tag", "action": "merge", "tool_id": "t", "data": {}}, "action"),
        (QRAnalyticsJob, {"qr_code_id": "q", "event": "eaten", "data": {}}, "event"),
        (DataExportJob, {"user_id": "u", "export_type": "docx", "data_type": "contacts"}, "exportType"),
        (EmailJob, {"to": "nobody", "subject": "s", "template": "t", "data": {}}, "to"),
        (EmailJob, {"to": "a@b.example\r\nBcc: x@y.example", "subject": "s", "template": "t", "data": {}}, "to"),
    ],
)
def test_unknown_kinds_and_malformed_addresses_are_refused(model, data, field):
    spellings = {field, "".join("_" + c.lower() if c.isupper() else c for c in field)}
    assert any(f"'{name}" in fault for fault in faults_of(model, **data) for name in spellings)


def test_anything_but_an_object_is_refused_in_words():
    for wrong in (None, [], "x", 5):
        with pytest.raises(InvalidJob, match="an object with its fields"):
            WebhookJob.parse(wrong)
    with pytest.raises(InvalidJob, match="not a string"):
        WebhookJob.parse({1: 2})


class Anything(JobModel):
    """An app's own model, with a field that is not checked."""

    queue: ClassVar[str] = "anything"
    value: Any


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}, "\ud800"])
def test_values_that_json_cannot_represent_are_never_changed_silently(value):
    with pytest.raises(ValueError):
        Anything(value=value).dump_json()


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "ä€😀", 2**70, 1e300, None, {"a": [True, 0.1]}])
def test_the_json_of_a_job_has_all_its_values(value):
    job = Anything(value=value)
    assert json.loads(job.dump_json()) == job.dump() == {"value": value}


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
def test_a_payload_is_read_as_pythons_json_reads_it(value):
    text = json.dumps(value).encode()  # floats with all their digits, NaN and infinity too
    assert repr(read_json(text)) == repr(json.loads(text))


@pytest.mark.parametrize("text", [b'"\\ud800"', b"[" * 300 + b"]" * 300, '{"a": 1}'.encode("utf-16")])
def test_texts_that_the_fast_parser_refuses_are_read_by_json(text):
    assert read_json(text) == json.loads(text)


@pytest.mark.parametrize("text", [b"", b"{", b'{"a" 1}', b"\xff\x00"])
def test_invalid_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        read_json(text)
