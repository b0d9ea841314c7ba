"""Translates a response to the outcome of the job."""

from __future__ import annotations

from datetime import datetime, timedelta

from rqjobs.config.retry_after import parse_retry_after
from rqjobs.errors import PermanentFailure, RetryLater, RQJobsError
from rqjobs.processors.webhook.transfer import DeliveryFailed, Response

GONE = 410
"""410 Gone: the endpoint wants no further deliveries."""
_RETRIED = {408, 425, 429}


def failure(response: Response, now: datetime, limit: timedelta) -> RQJobsError | None:  # noqa: PLR0911  # an outcome each
    """Returns the error that ``response`` means for the attempt; None for 2xx.

    3xx is permanent (redirects are not followed, so the URL must be changed), as are all 4xx except 408, 425 and 429.
    Those and 5xx are retried, at the time of Retry-After or after the wait of the queue's backoff.
    """
    status = response.status
    if 200 <= status < 300:  # noqa: PLR2004
        return None
    if 300 <= status < 400:  # noqa: PLR2004
        return PermanentFailure(f"the endpoint answered {status}: redirects are not followed, fix its URL")
    if status == GONE:
        return PermanentFailure("the endpoint answered 410: it is gone for good")
    if status >= 600:  # noqa: PLR2004
        return DeliveryFailed("protocol", f"the endpoint answered {status}, which is no status of HTTP")
    if status in _RETRIED or status >= 500:  # noqa: PLR2004
        if wait := parse_retry_after(response.retry_after, limit=limit, now=now):
            return RetryLater(
                wait, f"the endpoint answered {status} and asks for {wait.total_seconds():g} s of patience"
            )
        return DeliveryFailed("status", f"the endpoint answered {status}")
    return PermanentFailure(f"the endpoint answered {status}: it does not accept this delivery")
