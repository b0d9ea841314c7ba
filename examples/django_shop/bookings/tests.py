"""How a Django project tests its jobs: no Redis, real commits."""

from django.core import checks
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase, override_settings

from bookings.jobs import make_receipt
from bookings.models import Booking
from rqjobs import InvalidJob, WebhookJob, enqueue_webhook
from rqjobs.config.settings import get_settings
from rqjobs.testing import capture, run

HOOK = WebhookJob(webhook_id="wh_1", event="hello", url="https://example.com", payload={})


class Bookings(TestCase):
    def test_a_booking_enqueues_its_webhook(self):
        with capture() as captured, self.captureOnCommitCallbacks(execute=True):
            self.client.post("/bookings", {"user_id": "u1", "amount": "1.00"}, content_type="application/json")
        captured.assert_enqueued(WebhookJob, event="booking.created", count=1)

    def test_the_receipt(self):
        booking = Booking.objects.create(user_id="u1", amount="2.50")
        assert run(make_receipt.job({"booking": booking.pk})) == "receipt 1: 2.50"


class Transactions(TransactionTestCase):
    def test_nothing_before_the_commit_and_nothing_after_a_rollback(self):
        with capture() as captured:
            with transaction.atomic():
                enqueue_webhook(HOOK)
                with self.assertRaises(InvalidJob):
                    enqueue_webhook({"webhookId": "w"})  # a wrong job is an error of the call
                assert len(captured) == 0
            assert len(captured) == 1
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                enqueue_webhook(HOOK)
                _ = 1 / 0
            assert len(captured) == 1

    def test_a_rolled_back_savepoint_drops_its_jobs(self):
        with capture() as captured, transaction.atomic():
            enqueue_webhook(HOOK, job_id="outer")
            try:
                with transaction.atomic():
                    enqueue_webhook(HOOK, job_id="inner")
                    _ = 1 / 0
            except ZeroDivisionError:
                pass
        assert [item.job_id for item in captured.jobs] == ["outer"]

    def test_at_once_when_asked(self):
        with capture() as captured, transaction.atomic():
            enqueue_webhook(HOOK, on_commit=False)
            assert len(captured) == 1
            with override_settings(RQJOBS={"ON_COMMIT": False}):
                enqueue_webhook(HOOK)
            assert len(captured) == 2


class Outbox(TestCase):
    def test_a_job_is_written_in_the_test_s_transaction(self):
        enqueue_webhook(HOOK, outbox=connection)
        with connection.cursor() as cursor:
            cursor.execute("SELECT lane FROM rqjobs_outbox")
            assert cursor.fetchall() == [("webhooks",)]

    def test_no_test_uses_the_real_database(self):
        assert "shop.sqlite3" not in get_settings().database_url.get_secret_value()


class CommittedOutbox(TransactionTestCase):
    def test_the_outbox_is_empty_at_first(self):
        for _ in range(2):
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM rqjobs_outbox")
                assert cursor.fetchone() == (0,)
            with transaction.atomic():
                enqueue_webhook(HOOK, outbox=connection)
            self._fixture_teardown()


class Settings(TestCase):
    def test_the_system_check_reports_faults(self):
        with override_settings(RQJOBS={"WEBHOOK_TIMEOUT": "soon", "REDIS_ULR": "x"}, DEBUG=False):
            found = {message.id: message.msg for message in checks.run_checks()}
            messages = [message.msg for message in checks.run_checks() if message.id == "rqjobs.E001"]
        assert "rqjobs.E001" in found
        assert any("WEBHOOK_TIMEOUT" in message for message in messages), messages
        assert any("REDIS_ULR: there is no such setting" in message for message in messages), messages
        with override_settings(RQJOBS={"WEBHOOK_ALLOW": ["127.0.0.1"]}, DEBUG=False):
            assert {"rqjobs.W002"} <= {message.id for message in checks.run_checks()}
