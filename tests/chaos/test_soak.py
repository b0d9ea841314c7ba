"""A long run: ``make soak``, of SOAK_MINUTES (20) at SOAK_RATE (200) jobs a second."""

from __future__ import annotations

import os
from dataclasses import asdict

import pytest

from tests.chaos.run import Run, Scenario
from tests.chaos.sampling import Sampler

pytestmark = pytest.mark.slow

MINUTES = float(os.environ.get("SOAK_MINUTES", "20"))
RATE = float(os.environ.get("SOAK_RATE", "200"))


def test_memory_descriptors_and_threads_stay_flat(tmp_path, monkeypatch, record_property):
    samples: list[Sampler] = []
    memory: list[int] = []

    def inject(run: Run) -> None:
        with Sampler(run.crew, 5) as sampler:
            samples.append(sampler)
            for _ in range(10):
                run.pause(MINUTES * 6, 0)
                memory.append(int(run.redis.client.info("memory")["used_memory"]) >> 20)

    run = Run(Scenario("soak", inject), tmp_path, long=True, rate=RATE)
    with run.world(monkeypatch.setenv):
        counts = run.go()
    (sampler,) = samples
    print(f"\n{counts.line()}\n{sampler.table()}\nRedis: {memory} MiB; peak of a worker {sampler.peak:.0f} MiB")
    record_property("chaos", asdict(counts))
    assert not counts.faults, "\n".join(counts.faults[:40])
    assert run.crew.ended == []
    early, late = ({what: sampler.level(what, *part) for what in ("rss", "descriptors", "threads")}
                   for part in ((0.25, 0.5), (0.75, 1)))  # fmt: skip
    assert late["rss"] < early["rss"] * 1.25 + 20
    assert late["descriptors"] < early["descriptors"] + 50
    assert late["threads"] < early["threads"] + 20
