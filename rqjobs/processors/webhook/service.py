"""The objects that live as long as an event loop: the connections and the delivery log's writer."""

from __future__ import annotations

import asyncio
import threading

from rqjobs.processors.webhook.client import Client
from rqjobs.processors.webhook.context import Context
from rqjobs.processors.webhook.delivery_log import DeliveryLog

_local = threading.local()


class Service:
    """The client and the delivery log of one event loop; both are closed when the loop ends."""

    def __init__(self, shared: Context) -> None:
        self.context = shared
        self.client = Client(shared.guard, shared.ca_file, shared.names)
        self.log = DeliveryLog()
        self._end = asyncio.get_running_loop().create_task(self._wait_for_end())

    async def _wait_for_end(self) -> None:
        # asyncio.run() and the worker cancel all tasks when they end, which starts the cleanup.
        try:
            await asyncio.Event().wait()
        finally:
            self.client.close()
            self.log.close()


def service(shared: Context) -> Service:
    """Returns the service of the running event loop."""
    found: Service | None = getattr(_local, "service", None)
    if found is None or found.context is not shared or found.client.loop is not asyncio.get_running_loop():
        found = _local.service = Service(shared)
    return found
