"""The processor of ``manychat-sync``: translates a job to API calls, and their responses to the job's outcome."""

from __future__ import annotations

from typing import Any

import redis

from rqjobs.attempt import Attempt
from rqjobs.broker.connection import get_connection
from rqjobs.config.settings import get_settings
from rqjobs.errors import DependencyUnavailable, PermanentFailure, RetryLater
from rqjobs.jobs import ManyChatSyncJob
from rqjobs.jobs.manychat_data import FieldCreate, SyncData, TagCreate, TagDelete
from rqjobs.processors.manychat.accounts import Account, account_of
from rqjobs.processors.manychat.catalog import Catalog
from rqjobs.processors.manychat.change import Change, change_of, net
from rqjobs.processors.manychat.client import ManyChat
from rqjobs.processors.manychat.contacts import Contacts
from rqjobs.processors.manychat.merging import Group, Outcome, Waiting
from rqjobs.processors.manychat.records import ManyChatRefused


def sync(job: ManyChatSyncJob, attempt: Attempt) -> dict[str, Any]:
    """Changes the contact, tag or field to the state that the job describes; repeating it changes nothing more.

    Returns:
        ``outcome`` (created, updated, unchanged, exists, deleted or absent), ids, the changes, and the number of
        ``calls``; for a merged job ``merged_into``.

    Raises:
        PermanentFailure: ManyChat refuses it, or has no such contact, tag or field.
        RetryLater: the token's rate limit requires a pause.
        ManyChatUnavailable: ManyChat does not answer, or refuses the account's token.
    """
    run = _Run(account_of(job.tool_id), attempt)
    if job.merge:
        return run.merged(job)
    return run.alone(job)


class _Run:
    """One run of one job."""

    def __init__(self, account: Account, attempt: Attempt) -> None:
        self._account = account
        self._attempt = attempt
        self._redis: redis.Redis = get_connection()
        self._api = ManyChat(account, get_settings().manychat_api_url, self._redis, attempt)
        self._catalog = Catalog(self._api, self._redis)

    def alone(self, job: ManyChatSyncJob) -> dict[str, Any]:
        details = job.details()
        change = change_of(details)
        return self._on_page(details) if change is None else self._apply(change)

    def merged(self, job: ManyChatSyncJob) -> dict[str, Any]:
        """Applies all changes that wait for the contact, or returns the outcome if another job has applied this one."""
        group = Group(self._account, job, self._attempt)
        claimed = group.take(self._redis)
        if isinstance(claimed, Outcome):
            return _result(claimed)
        try:
            outcomes = self._apply_all(claimed)
        except Exception as error:
            away = isinstance(error, DependencyUnavailable)
            counted = not away and (not isinstance(error, RetryLater) or error.counts)
            group.give_up(self._redis, leave=counted and self._attempt.last)
            raise
        group.settle(self._redis, outcomes)
        own = outcomes[group.unit]
        if own.failure is not None:
            raise PermanentFailure(own.failure)
        others = [one.unit.rpartition("@")[0] for one in claimed if one.unit != group.unit]
        return {**(own.result or {}), "merged": others}

    def _apply_all(self, claimed: list[Waiting]) -> dict[str, Outcome]:
        """Applies all changes as one; if that is refused, one by one, so that only a faulty change fails."""
        changes = [(one.unit, change) for one in claimed if (change := change_of(one.job.details())) is not None]
        try:
            result = self._apply(net(change for _unit, change in changes))
            return {unit: Outcome(self._attempt.job_id, result) for unit, _change in changes}
        except PermanentFailure as failure:
            if len(changes) == 1:
                return {changes[0][0]: Outcome(self._attempt.job_id, failure=failure.reason)}
        outcomes = {}
        for unit, change in changes:
            try:
                outcomes[unit] = Outcome(self._attempt.job_id, self._apply(change))
            except PermanentFailure as failure:
                outcomes[unit] = Outcome(self._attempt.job_id, failure=failure.reason)
        return outcomes

    def _apply(self, change: Change) -> dict[str, Any]:
        contacts = Contacts(self._api, self._catalog)
        try:
            try:
                done = contacts.apply(change)
            except ManyChatRefused as refusal:
                if not refusal.missing:
                    raise
                self._catalog.forget()  # the cached lists may have a tag or field that was deleted in the last minute
                done = contacts.apply(change)
        except ManyChatRefused as refusal:
            raise PermanentFailure(str(refusal)) from None
        return {**done.as_json(), "calls": self._api.calls}

    def _on_page(self, details: SyncData) -> dict[str, Any]:
        """Applies a change to the page's tags and fields, without a contact."""
        try:
            match details:
                case TagCreate():
                    there = self._catalog.find_tag(details.name)
                    tag = there or self._catalog.tag(details.name)
                    result = {"outcome": "exists" if there else "created", "tag_id": str(tag.id)}
                case TagDelete():
                    result = self._delete_tag(details)
                case FieldCreate():
                    result = self._create_field(details)
                case _:
                    raise PermanentFailure(f"nothing to do for {type(details).__name__} without a contact")
        except ManyChatRefused as refusal:
            raise PermanentFailure(str(refusal)) from None
        return {**result, "calls": self._api.calls}

    def _delete_tag(self, details: TagDelete) -> dict[str, Any]:
        tag = self._catalog.find_tag(details.name or details.tag_id or 0)
        if tag is None:
            return {"outcome": "absent"}
        try:
            self._api.delete_tag(tag.id)
        except ManyChatRefused as refusal:
            if not refusal.missing:
                raise
            return {"outcome": "absent"}
        finally:
            self._catalog.forget()
        return {"outcome": "deleted", "tag_id": str(tag.id)}

    def _create_field(self, details: FieldCreate) -> dict[str, Any]:
        """Creates a field with this name and type, unless it exists."""
        custom, outcome = self._catalog.find_field(details.name), "exists"
        if custom is None:
            try:
                custom = self._api.create_field(details.name, details.field_type, details.description)
                outcome = "created"
            except ManyChatRefused as refusal:
                if not refusal.already_exists:
                    raise
            finally:
                self._catalog.forget()
            custom = custom or self._catalog.field(details.name)
        if custom.type not in (None, details.field_type):
            raise PermanentFailure(
                f"ManyChat has the field {custom.name!r} as {custom.type}, and a definition cannot be changed:"
                " choose another name, or the type it has"
            )
        return {"outcome": outcome, "field_id": str(custom.id)}


def _result(outcome: Outcome) -> dict[str, Any]:
    if outcome.failure is not None:
        raise PermanentFailure(outcome.failure)
    return {**(outcome.result or {}), "calls": 0, "merged_into": outcome.merged_into}
