"""Checked by mypy, never run: the public names as users write them."""

from datetime import timedelta
from typing import assert_type

from rq.job import Job

import rqjobs
from rqjobs import (
    EmailJob,
    JobFailed,
    QRAnalyticsJob,
    ResultTimeout,
    WebhookJob,
    enqueue_batch,
    enqueue_chain,
    enqueue_email,
    enqueue_many,
    enqueue_webhook,
    exponential,
    fixed,
    queue_health,
    wait_for_result,
)
from rqjobs.jobs import Attachment

hook = WebhookJob(webhook_id="wh_1", event="qr.scanned", url="https://example.com", payload={"code": "A"})
job = enqueue_webhook(
    hook,
    priority="high",
    attempts=5,
    backoff=exponential(timedelta(seconds=5), jitter=0.1),
    delay=timedelta(hours=1),
    job_id="a",
    unique=True,
    timeout="30s",
)
assert_type(job, Job)
batch = enqueue_batch([hook, (hook, {"delay": "1h"})], then=hook, on_dead=[hook], tags={"a": "b"}, priority="low")
assert_type(batch.progress(), rqjobs.BatchProgress)
assert_type(enqueue_chain(iter([hook]), name="steps", attempts=3), rqjobs.Batch)
enqueue_email({"to": "ada@example.com", "subject": "Hello", "template": "welcome", "data": {}}, backoff="fixed:10s")
mail = EmailJob(to=["ada@example.com"], subject="Hello", template="welcome", data={})
EmailJob(
    to="ada@example.com",
    subject=None,
    template="welcome",
    data={},
    sender="Shop <shop@example.com>",
    attachments=["invoice.pdf", Attachment(source="s3://shop/terms.pdf", name="Terms.pdf")],
)
assert_type(enqueue_many([hook, (mail, {"priority": "low"})], backoff=fixed("1s")), list[Job])
enqueue_webhook(hook, priority="urgent")  # type: ignore[arg-type]
enqueue_webhook(hook, attemps=3)  # type: ignore[call-arg]
enqueue_webhook(QRAnalyticsJob(qr_code_id="q", event="scan", data={}))  # type: ignore[arg-type]
try:
    wait_for_result(job, timeout=timedelta(seconds=30))
except (JobFailed, ResultTimeout) as error:
    assert_type(error.job_id, str)
assert_type(queue_health()[0].healthy, bool)
rqjobs.enqueue_webhok(hook)  # type: ignore[attr-defined]
rqjobs.jobs.WebhokJob  # type: ignore[attr-defined]  # noqa: B018
