"""A booking."""

from django.db import models


class Booking(models.Model):
    """One booking of one user."""

    user_id = models.CharField(max_length=64)
    amount = models.DecimalField(max_digits=9, decimal_places=2)
    created_at = models.DateTimeField(auto_now_add=True)
