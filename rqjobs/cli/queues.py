"""``rqjobs queues``: the policy table of this installation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rqjobs.cli.output import bold, json_option, print_json, print_table, say

if TYPE_CHECKING:
    from rqjobs.policies import QueuePolicy

_HEADINGS = {
    "attempts": "attempts", "backoff": "waits", "timeout": "time limit", "concurrency": "slots", "rate": "rate",
}  # fmt: skip


@click.command()
@json_option
def queues(*, as_json: bool) -> None:
    """Show the policy of every queue, and where each value comes from.

    Attempts are the most runs of a job, slots the most jobs of a queue that one worker process runs at once. A value
    from a setting has *, a value from the app's own policy has +, all others are defaults.
    """
    from rqjobs.policies import TUNABLE, base_policy, lanes_in_order, policies, setting_of, sources_of

    found = list(policies())
    if as_json:
        print_json({"queues": [_document(policy) for policy in found]})
        return
    marks = {"default": "", "setting": "*", "code": "+"}
    sources = {policy.name: sources_of(policy.name) for policy in found}
    rows = [
        (policy.name, *(f"{_text(policy, field)}{marks[sources[policy.name][field]]}" for field in _HEADINGS))
        for policy in found
    ]
    print_table(("queue", *(_HEADINGS[field] for field in _HEADINGS)), rows, right=("attempts", "slots"))
    for policy in found:
        if policy.limits_groups:
            say(f"{policy.name}, each group: {_groups(policy)}")
    say(f"\n{bold('lanes')}, in the order in which workers claim jobs:")
    lanes = lanes_in_order([policy.name for policy in found])
    for start in range(0, len(lanes), len(found)):
        say("  " + " ".join(lanes[start : start + len(found)]))
    for policy in found:
        for field in TUNABLE:
            if sources[policy.name][field] == "setting":
                name, before = setting_of(policy.name, field), _text(base_policy(policy.name), field)
                say(f"* {name}={_text(policy, field)} (without it: {before})")


def _document(policy: QueuePolicy) -> dict[str, Any]:
    from rqjobs.policies import TUNABLE, lanes, setting_of, sources_of

    return {
        "name": policy.name,
        "kind": policy.kind,
        "attempts": policy.attempts,
        "backoff": str(policy.backoff),
        "timeout": policy.timeout,
        "concurrency": policy.concurrency,
        "rate": str(policy.rate) if policy.rate else None,
        "group_concurrency": policy.group_concurrency,
        "group_rate": str(policy.group_rate) if policy.group_rate else None,
        "group_order": policy.group_order,
        "runs_in": policy.runs_in,
        "lanes": lanes(policy.name),
        "sources": sources_of(policy.name),
        "settings": {field: setting_of(policy.name, field) for field in TUNABLE},
    }


def _groups(policy: QueuePolicy) -> str:
    """Returns the limits of groups as text."""
    limits = []
    if policy.group_concurrency == 1:
        limits.append("one after the other" + (", over retries" if policy.group_order == "strict" else ""))
    elif policy.group_concurrency is not None:
        limits.append(f"{policy.group_concurrency} at once")
    if policy.group_rate is not None:
        limits.append(str(policy.group_rate))
    return "; ".join(limits)


def _text(policy: QueuePolicy, field: str) -> str:
    from rqjobs.config.durations import spell

    value = getattr(policy, field)
    if field == "timeout":
        return spell(value)
    return "no limit" if value is None else str(value)
