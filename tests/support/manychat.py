"""A sandbox of ManyChat, and jobs run against it in this process."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta

from rqjobs.attempt import Attempt
from rqjobs.jobs import ManyChatSyncJob
from rqjobs.processors.manychat import sync
from rqjobs.sandbox.manychat import ManyChatSandbox
from rqjobs.settings import use_settings

TOKEN = "4711:hush-0123456789abcdef"


@contextmanager
def sandbox(monkeypatch, **options):
    """The sandbox, and MANYCHAT_API_URL and MANYCHAT_API_TOKEN set to it."""
    with ManyChatSandbox(options.pop("tokens", (TOKEN,)), **options) as played:
        monkeypatch.setenv("MANYCHAT_API_URL", played.url)
        monkeypatch.setenv("MANYCHAT_API_TOKEN", TOKEN)
        use_settings(None)
        yield played


def job(kind, action, data, **more):
    return ManyChatSyncJob(type=kind, action=action, tool_id=more.pop("tool_id", "tool_1"), data=data, **more)


def run(kind, action, data, *, job_id="job-1", number=1, of=3, timeout=60, **more):
    """Runs one job here and now."""
    attempt = Attempt(job_id=job_id, queue="manychat-sync", number=number, of=of, timeout=timedelta(seconds=timeout))
    return sync(job(kind, action, data, **more), attempt)


def state(played):
    """Contacts of the first account as people read them: by email, phone or WhatsApp number."""
    account = played.account
    return {
        one.profile.get("email") or one.profile.get("phone") or one.whatsapp_phone: {
            **{name: value for name, value in one.profile.items() if name in ("first_name", "last_name")},
            "fields": {account.fields[key]["name"]: value for key, value in one.fields.items()},
            "tags": {account.tags[tag] for tag in one.tags},
        }
        for one in account.subscribers.values()
    }
