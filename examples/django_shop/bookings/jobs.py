"""The shop's own jobs and export sources. rqjobs imports the jobs.py of each app."""

import rqjobs
from bookings.models import Booking
from rqjobs.integrations.django.sources import register_model
from rqjobs.sources import since_until

register_model("shop_bookings", Booking, columns=["id", "amount", "created_at"], filters=since_until("created_at"))


@rqjobs.job(queue="receipts", attempts=5)
def make_receipt(payload: dict) -> str:
    booking = Booking.objects.get(pk=payload["booking"])
    return f"receipt {booking.pk}: {booking.amount:.2f}"
