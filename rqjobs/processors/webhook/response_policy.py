"""What a response means for the job."""

from __future__ import annotations

from datetime import datetime, timedelta

from rqjobs.config.retry_after import parse_retry_after
from rqjobs.errors import PermanentFailure, RetryLater, RQJobsError
from rqjobs.processors.webhook.transfer import DeliveryFailed, Response

GONE = 410
"""410 Gone: the endpoint wants no further delivery."""
_RETRIED = {408, 425, 429}


def failure(response: Response, now: datetime, limit: timedelta) -> RQJobsError | None:  # noqa: PLR0911  # an outcome each
    """The error that ``response`` ends the attempt with, None for 2xx.

    3xx is permanent (a redirect is never followed, the URL must be changed), as is every 4xx but 408, 425 and
    429; those and 5xx are tried again, at the time of Retry-After or by the queue's backoff.
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
