"""One pipeline of commands to Redis, with the handlers of its responses."""

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
    """The time of sending, ``time.monotonic()``."""
    commands: list[Sequence[Word]] = field(default_factory=list)
    handlers: list[Callable[[Any], None]] = field(default_factory=list)
    """The functions that receive the response of each command. They must not refer to the request: such a reference
    cycle would keep hundreds of jobs until the next garbage collection."""
    batch: list[ClaimedJob] = field(default_factory=list)
    """The jobs whose outcomes it writes."""
    claims: list[tuple[QueueState, int]] = field(default_factory=list)
    """The number of jobs it claims, by queue."""

    def add(self, command: Sequence[Word], handler: Callable[[Any], None]) -> None:
        """Adds a command, and the function that receives its response."""
        self.commands.append(command)
        self.handlers.append(handler)
