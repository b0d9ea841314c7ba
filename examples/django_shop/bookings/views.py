"""Stores a booking; its webhook and its receipt are enqueued after the commit."""

import json

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from bookings.jobs import make_receipt
from bookings.models import Booking
from rqjobs import WebhookJob, enqueue_webhook


class NoSeats(Exception):
    """The booking has more seats than there are."""


@csrf_exempt  # an API for machines
def book(request: HttpRequest) -> JsonResponse:
    wanted = json.loads(request.body)
    try:
        with transaction.atomic():
            booking = Booking.objects.create(user_id=wanted["user_id"], amount=wanted["amount"])
            # Inside atomic: both wait for the commit, and a rollback drops them.
            hook = enqueue_webhook(
                WebhookJob(
                    webhook_id="wh_1",
                    event="booking.created",
                    url=settings.SHOP_WEBHOOK_URL,
                    payload={"booking": booking.pk},
                )
            )
            make_receipt.enqueue({"booking": booking.pk})
            if wanted.get("seats", 1) > 10:
                raise NoSeats
    except NoSeats:
        return JsonResponse({"error": "no seats"}, status=409)
    return JsonResponse({"booking": booking.pk, "webhook": hook.id}, status=202)
