"""Arguments that several commands take, with what shells complete them to."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from rqjobs.errors import UnknownQueue
from rqjobs.queues import get_policy, lanes, policies


class QueueName(click.ParamType[str]):
    """The name of a queue; a lane or a kind of job means its queue."""

    name = "queue"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The queue's name."""
        try:
            return get_policy(str(value)).name
        except UnknownQueue as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """The queues that begin like this."""
        return [CompletionItem(policy.name) for policy in policies() if policy.name.startswith(incomplete)]


class LaneName(QueueName):
    """The name of a queue, or of a lane such as ``webhooks:high``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The lane's name, or the queue's."""
        queue = super().convert(value, param, ctx)
        return str(value) if str(value) in lanes(queue) else queue


QUEUE = QueueName()
LANE = LaneName()
