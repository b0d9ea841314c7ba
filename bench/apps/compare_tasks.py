"""One task of ``bench.compare``, in a process of the tree that is measured: it enqueues or imports, and prints figures.

``compare_tasks.py import | noop N | sleep N | one N | latency N | webhooks GOOD_URL N REFUSED_URL N``
"""

import json
import os
import sys
import time
from pathlib import Path
from statistics import median

BULK = 500
BATCHES = 6


def cpu_of(count, work):
    """CPU milliseconds of this process and of Redis for a batch of jobs, and how many these are.

    ``work`` enqueues the jobs from one number to another. The medians of several batches: one in which the machine did
    something else counts little.
    """
    import redis

    server = redis.Redis.from_url(os.environ["REDIS_URL"])

    def used():
        info = server.info("cpu")
        return time.process_time(), info["used_cpu_user"] + info["used_cpu_sys"]

    batch, found = count // BATCHES, []
    for start in range(0, batch * BATCHES, batch):
        before = used()
        work(start, start + batch)
        found.append([1000 * (after - began) for began, after in zip(before, used(), strict=True)])
    work(batch * BATCHES, count)
    return [*map(median, zip(*found, strict=True)), batch]


def import_rqjobs():
    start = time.process_time()
    __import__("rqjobs").enqueue_webhook  # noqa: B018  # public names are loaded at their first use
    return [1000 * (time.process_time() - start)]


def fill(kind, count):
    from bench.apps import marks, rqjobs_app

    rqjobs_app.many(kind, [marks.payload()])

    def work(first, end):
        for start in range(first, end, BULK):
            rqjobs_app.many(kind, [marks.payload(n) for n in range(start, min(start + BULK, end))])

    return cpu_of(count, work)


def one(count):
    from bench.apps import marks, rqjobs_app

    rqjobs_app.one("noop", marks.payload())
    return cpu_of(count, lambda first, end: [rqjobs_app.one("noop", marks.payload(n)) for n in range(first, end)])


def latency(count):
    """Milliseconds from each enqueue to the job's end, one job at a time: the median."""
    from bench.apps import marks, rqjobs_app

    done, waits = Path(os.environ["BENCH_MARKS"]), []
    for number in range(count):
        size = done.stat().st_size + 8
        start = time.perf_counter()
        rqjobs_app.one("noop", marks.payload(number))
        while done.stat().st_size < size:
            time.sleep(0.0001)
        waits.append(1000 * (time.perf_counter() - start))
        time.sleep(0.02)
    return [median(waits[5:])]


def webhooks(good, count, refused, refused_count):
    from rqjobs import WebhookJob, enqueue_many

    urls = [good] * count + [refused] * refused_count
    urls = [urls[n * 7919 % len(urls)] for n in range(len(urls))]  # mixed, in the same order each time
    payload = {"qrCode": "ABC123", "n": 1}
    jobs = [WebhookJob(webhook_id="webhook_123", event="qr.scanned", url=url, payload=payload) for url in urls]
    for start in range(0, len(jobs), BULK):
        enqueue_many(jobs[start : start + BULK])
    return []


def main(task, *args):
    if task == "import":
        return import_rqjobs()
    if task == "webhooks":
        return webhooks(args[0], int(args[1]), args[2], int(args[3]))
    if task in ("one", "latency"):
        return {"one": one, "latency": latency}[task](int(args[0]))
    return fill(task, int(args[0]))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
