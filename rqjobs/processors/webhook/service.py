"""What lives as long as an event loop: the connections and the delivery log's writer."""

from __future__ import annotations

import asyncio
import threading

from rqjobs.processors.webhook.client import Client
from rqjobs.processors.webhook.context import Context
from rqjobs.processors.webhook.delivery_log import DeliveryLog

_local = threading.local()


class Service:
    """One event loop's client and log. When the loop is wound up, the log is written and connections end."""

    def __init__(self, shared: Context) -> None:
        self.context = shared
        self.client = Client(shared.guard, shared.ca_file, shared.names)
        self.log = DeliveryLog()
        self._end = asyncio.get_running_loop().create_task(self._wait_for_end())

    async def _wait_for_end(self) -> None:
        # asyncio.run(), and the worker, cancel what is left when they end: that is the moment to tidy up.
        try:
            await asyncio.Event().wait()
        finally:
            self.client.close()
            self.log.close()


def service(shared: Context) -> Service:
    """The service of the running event loop."""
    found: Service | None = getattr(_local, "service", None)
    if found is None or found.context is not shared or found.client.loop is not asyncio.get_running_loop():
        found = _local.service = Service(shared)
    return found
