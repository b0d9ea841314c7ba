"""What the jobs of every system do: write down that they were done, 8 bytes a job in one file."""

import os
import struct
import time

_FILE = os.open(os.environ.get("BENCH_MARKS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def mark():
    os.write(_FILE, struct.pack("d", time.time()))


def noop(data):
    mark()


def sleep(data):
    time.sleep(0.05)
    mark()


async def async_noop(data):
    mark()


async def async_sleep(data):
    import asyncio

    await asyncio.sleep(0.05)
    mark()


def payload(number=0):
    return {
        "webhookId": "webhook_123",
        "event": "qr.scanned",
        "url": "https://api.example.com/hook",
        "payload": {"qrCode": "ABC123", "n": number},
    }
