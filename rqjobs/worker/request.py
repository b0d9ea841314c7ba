"""One pipeline of commands to Redis, and what becomes of its responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.protocol import Word
from rqjobs.worker.queue_state import QueueState


@dataclass
class Request:
    """The commands that the loop sends in one write."""

    sent: float
    """``time.monotonic()`` at which it is sent."""
    commands: list[Sequence[Word]] = field(default_factory=list)
    handlers: list[Callable[[Any], None]] = field(default_factory=list)
    """What to call with the response to each command. They must not refer to the request: a circle of hundreds of jobs
    would wait for Python's garbage collector."""
    batch: list[ClaimedJob] = field(default_factory=list)
    """The jobs whose outcomes it writes."""
    claims: list[tuple[QueueState, int]] = field(default_factory=list)
    """How many jobs of which queue it claims."""

    def add(self, command: Sequence[Word], handler: Callable[[Any], None]) -> None:
        """Adds a command, and what is called with its response."""
        self.commands.append(command)
        self.handlers.append(handler)
