"""Checks jobs before they start: they wait outside of slots for the rate limit, merged ones for each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from rqjobs.attempt import Attempt, Hold
from rqjobs.broker.connection import get_connection
from rqjobs.broker.holds import held_scopes
from rqjobs.config.settings import get_settings
from rqjobs.errors import DependencyUnavailable
from rqjobs.jobs import ManyChatSyncJob
from rqjobs.policies import Priority, priority_of
from rqjobs.processors.manychat.accounts import Account, account_of
from rqjobs.processors.manychat.change import change_of
from rqjobs.processors.manychat.client import limit_of
from rqjobs.processors.manychat.merging import Group, unit_of

_MERGING = "waits for more changes of the same contact"
_PACE = "waits for its turn: ManyChat's limit for the token"


def admit(jobs: Sequence[tuple[ManyChatSyncJob, Attempt]]) -> list[Hold | DependencyUnavailable | None]:
    """Returns which of the jobs must wait, and until when (see rqjobs.policies.QueuePolicy.admit)."""
    connection = get_connection()
    holds: list[Hold | DependencyUnavailable | None] = [None] * len(jobs)
    known = _accounts({job.tool_id for job, _attempt in jobs})
    accounts = {index: known[job.tool_id] for index, (job, _attempt) in enumerate(jobs) if job.tool_id in known}
    waiting = held_scopes(connection, "manychat-sync")
    for index, account in list(accounts.items()):
        if (away := waiting.get(account.key)) is not None and not away.tries(jobs[index][1].job_id):
            holds[index] = away.error  # its token was refused; jobs of other tokens are not held
            del accounts[index]
    groups = {index: Group(of, *jobs[index]) for index, of in accounts.items() if jobs[index][0].merge}
    for index, answer in zip(groups, _joined(groups.values()), strict=True):
        if answer > 0:
            holds[index] = _hold(answer / 1000, _MERGING)
        if answer:  # it must wait, or is done already
            del accounts[index]
    for account in dict.fromkeys(accounts.values()):
        asked = [index for index, of in accounts.items() if of == account]
        units = [_unit(*jobs[index], groups.get(index)) for index in asked]
        for index, wait in zip(asked, limit_of(account).admit(connection, units), strict=True):
            if wait > 0:
                holds[index] = _hold(wait, _PACE)
                if index in groups:
                    groups[index].put_off(connection, wait)
    return holds


def _accounts(tools: Iterable[str]) -> dict[str, Account]:
    """Returns the accounts of the tools that have one; a job of another tool fails when it runs, with the reason."""
    found = {}
    for tool_id in tools:
        with suppress(Exception):  # a registered source is the app's code
            found[tool_id] = account_of(tool_id)
    return found


def _joined(groups: Iterable[Group]) -> list[int]:
    with get_connection().pipeline(transaction=False) as pipeline:
        for group in groups:
            group.join(pipeline, get_settings().manychat_merge_window)
        answers: list[int] = pipeline.execute()
        return answers


def _unit(job: ManyChatSyncJob, attempt: Attempt, group: Group | None) -> tuple[str, int, Priority]:
    change = change_of(job.details())
    cost = 1 if change is None else change.cost
    return (group.name if group else unit_of(attempt)), cost, priority_of(attempt.queue)


def _hold(seconds: float, reason: str) -> Hold:
    return Hold(datetime.now(UTC) + timedelta(seconds=seconds), reason)
