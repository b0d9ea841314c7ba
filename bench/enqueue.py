"""Enqueueing one by one and in bulk, Redis memory of a waiting job, and the health of a long queue.

``python -m bench.enqueue [--runs N] [--only SYSTEM ...]``
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import uuid

from bench.systems import Stage, System, installed, middle, show, stage

WAITING = 5_000


def order() -> dict[str, object]:
    """What a shop sends: an order of eight articles, about a kilobyte."""
    chance = random.Random(1)
    articles = [
        {
            "sku": f"{chance.getrandbits(40):010x}",
            "title": " ".join(chance.sample(("linen", "shirt", "blue", "coat", "wool", "scarf", "long", "red"), 3)),
            "quantity": chance.randint(1, 5),
            "unitPrice": f"{chance.randint(100, 20_000) / 100:.2f}",
            "currency": "EUR",
        }
        for _article in range(8)
    ]
    return {"orderId": str(uuid.UUID(int=chance.getrandbits(128))), "articles": articles}


def memory(on: Stage, system: System, more: dict[str, object]) -> float:
    """Bytes of Redis a waiting job takes that carries ``more``."""
    on.clear()
    on.more = more
    on.produce(system, "fill", "noop", "10")
    on.redis.memory_purge()
    before = on.redis.info("memory")["used_memory"]
    on.produce(system, "fill", "noop", str(WAITING))
    on.more = {}
    return float(on.redis.info("memory")["used_memory"] - before) / WAITING


def health(on: Stage, waiting: int) -> str:
    """Milliseconds of ``queue_health()`` with so many webhooks waiting."""
    on.clear()
    ids = [f"{number:024x}" for number in range(waiting)]
    for start in range(0, waiting, 10_000):
        on.redis.rpush("rq:queue:webhooks", *ids[start : start + 10_000])
    code = (
        "import time; from rqjobs import queue_health; queue_health(); times = []\n"
        "for _ in range(21):\n    start = time.perf_counter(); queue_health()\n"
        "    times.append(time.perf_counter() - start)\n"
        "print(1000 * sorted(times)[10])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=on.environment(), capture_output=True, text=True, check=True, cwd=on.folder
    )
    return done.stdout


def main() -> None:
    """Measures in turns."""
    options = argparse.ArgumentParser()
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--only", nargs="*", metavar="SYSTEM", default=[], help="rqjobs BullMQ ...; all by default")
    chosen = options.parse_args()
    with stage() as on:
        rates: dict[tuple[str, str], list[float]] = {}
        systems = [
            system for system in installed() if system.name != "RQ" and (system.name in chosen.only or not chosen.only)
        ]
        for _run in range(chosen.runs):
            for system in systems:
                for how in ("one", "many"):
                    on.clear()
                    rates.setdefault((system.name, how), []).append(float(on.produce(system, "rate", how, "2")))
        rows = []
        for system in systems:
            one, many = (middle(rates[system.name, how]) for how in ("one", "many"))
            bytes_ = [f"{memory(on, system, more):,.0f}" for more in ({}, order())]
            rows.append([system.name, f"{one:,.0f}", f"{many:,.0f}", *bytes_])
        heads = ["", "one by one", "in bulk", "bytes a waiting job", f"with {len(json.dumps(order()))} bytes more"]
        show("Enqueueing, jobs a second", heads, rows)
        print(f"\nqueue_health() with 1,000,000 webhooks waiting: {float(health(on, 1_000_000)):.1f} ms")


if __name__ == "__main__":
    main()
