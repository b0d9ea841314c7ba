"""The types of arguments that several commands share, with their shell completion."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from rqjobs.errors import RQJobsError, UnknownQueue


class InvalidInput(RQJobsError):
    """An argument, or the file that it names, is invalid."""


def read_json(source: str) -> Any:
    """Returns the JSON of ``source``: the text itself, ``@FILE``, or ``-`` for stdin.

    Raises:
        InvalidInput: it cannot be read, or is not JSON.
    """
    try:
        if source == "-":
            text = sys.stdin.read()
        elif source.startswith("@"):
            text = Path(source[1:]).read_text(encoding="utf-8")
        else:
            text = source
        return json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{source} cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not JSON: {error}") from None


class QueueName(click.ParamType[str]):
    """The name of a queue; the name of a lane or of a kind of job selects its queue."""

    name = "queue"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the queue's name."""
        from rqjobs.policies import get_policy

        try:
            return get_policy(str(value)).name
        except UnknownQueue as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Returns the queues with this beginning."""
        from rqjobs.policies import policies

        return [CompletionItem(policy.name) for policy in policies() if policy.name.startswith(incomplete)]


class LaneName(QueueName):
    """The name of a queue, or of a lane such as ``webhooks:high``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the name of the lane, or of the queue."""
        from rqjobs.policies import lanes

        queue = super().convert(value, param, ctx)
        return str(value) if str(value) in lanes(queue) else queue


QUEUE = QueueName()
LANE = LaneName()
