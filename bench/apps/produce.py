"""One system's producer: ``produce.py APP fill KIND N | rate one|many SECONDS | latency N``, in its environment."""

import importlib
import json
import os
import random
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]


def main(name, what, *args):
    from marks import payload

    app = importlib.import_module(f"bench.apps.{name}" if name in ("rqjobs_app", "rq_app") else name)
    if what == "fill":
        kind, count = args[0], int(args[1])
        for start in range(0, count, 500):
            app.many(kind, [payload(n) for n in range(start, min(start + 500, count))])
    elif what == "rate":
        app.one("noop", payload())
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < float(args[1]):
            if args[0] == "one":
                app.one("noop", payload(count))
                count += 1
            else:
                app.many("noop", [payload(n) for n in range(500)])
                count += 500
        print(count / (time.perf_counter() - start))
    else:
        marks, sent = os.environ["BENCH_MARKS"], []
        for number in range(1, int(args[0]) + 1):
            sent.append(time.time())
            app.one("noop", payload(number))
            while Path(marks).stat().st_size < 8 * number:
                time.sleep(0.0005)
            time.sleep(random.uniform(0.01, 0.02))
        print(json.dumps(sent))


main(*sys.argv[1:])
