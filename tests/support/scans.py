"""Scans for tests: a few weeks of them, made with fixed dice."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from rqjobs.attempt import Attempt
from rqjobs.jobs import QRAnalyticsJob

PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605 (KHTML, like Gecko) Mobile/1 Safari/604"
DESKTOP = "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:126.0) Gecko/20100101 Firefox/126.0"
CURL = "curl/8.5.0"


def scans(number: int, since: datetime, days: int, seed: int = 1) -> list[QRAnalyticsJob]:
    """``number`` events over ``days`` days: three scans in four, the rest validations; every ninth by a bot."""
    dice = random.Random(seed)
    return [
        QRAnalyticsJob(
            qr_code_id=f"qr_{min(dice.randrange(9), dice.randrange(9))}",
            event=dice.choice(["qr.scanned", "qr.scanned", "qr.scanned", "qr.validated"]),
            data={
                "eventId": f"e{index}",
                "timestamp": (since + timedelta(seconds=dice.randrange(days * 86_400))).isoformat(),
                "userId": f"u{dice.randrange(2)}",
                "userAgent": dice.choice([PHONE] * 5 + [DESKTOP] * 3 + [CURL]),
                "ip": f"203.0.113.{dice.randrange(60)}",
                "location": dice.choice([{"country": "DE", "city": "Berlin"}, {"country": "FR", "city": "Paris"}]),
                "result": dice.choice(["valid", "expired"]),
            },
        )
        for index in range(number)
    ]


def attempts(jobs: list[QRAnalyticsJob]) -> list[tuple[QRAnalyticsJob, Attempt]]:
    """The jobs as the processor is handed them."""
    return [(job, Attempt(job_id=f"j{index}", queue=job.queue)) for index, job in enumerate(jobs)]


def jobs_of(code: str, number: int) -> list[QRAnalyticsJob]:
    """``number`` scans of one code, now, each by somebody else."""
    return [
        QRAnalyticsJob(
            qr_code_id=code,
            event="scan",
            data={"event_id": f"{code}-{index}", "ip": f"198.51.{index // 250}.{index % 250}", "user_agent": PHONE},
        )
        for index in range(number)
    ]
