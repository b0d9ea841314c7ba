"""A chat with an incoming webhook, on loopback."""

from __future__ import annotations

import json

from tests.support.loopback import Loopback


class Chat(Loopback):
    """Where a chat's incoming webhook leads."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(status)
        self.url += "/services/hunter2"

    @property
    def posted(self) -> list[dict[str, str]]:
        """The documents that came, in order."""
        return [json.loads(asked.body) for asked in self.asked]
