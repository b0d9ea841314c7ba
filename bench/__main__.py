"""``python -m bench [NAME ...] [--peers FOLDER]``: the benchmarks, one after the other.

Each is a module that runs by itself, with options of its own: ``python -m bench.engine --runs 5``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys

NAMES = ("engine", "enqueue", "webhooks", "analytics", "export", "operations")


def main() -> int:
    """Runs the benchmarks that are named, or all."""
    present = [name for name in NAMES if importlib.util.find_spec(f"bench.{name}")]
    options = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    options.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(present)}; all by default")
    options.add_argument("--peers", help="a folder with other job systems installed, see bench/systems.py")
    chosen = options.parse_args()
    if unknown := set(chosen.names) - set(present):
        options.error(f"there is no {', '.join(unknown)}")
    environment = {**os.environ, **({"BENCH_PEERS": chosen.peers} if chosen.peers else {})}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the start", flush=True)
    codes = []
    for name in chosen.names or present:
        print(f"\n== {name}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", f"bench.{name}"], env=environment, check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
