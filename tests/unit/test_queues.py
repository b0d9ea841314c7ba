"""Queues and their lanes by name."""

from __future__ import annotations

import pytest

from rqjobs.errors import UnknownQueue
from rqjobs.policies import lanes_of


@pytest.mark.parametrize(
    ("name", "lanes"),
    [
        ("webhooks", ["webhooks:high", "webhooks", "webhooks:low"]),
        ("webhook", ["webhooks:high", "webhooks", "webhooks:low"]),  # the kind
        ("webhooks:high", ["webhooks:high"]),
        ("webhook:low", ["webhooks:low"]),
        ("webhooks:normal", ["webhooks"]),
    ],
)
def test_the_lanes_that_a_name_means(name, lanes):
    assert lanes_of(name) == lanes


@pytest.mark.parametrize("name", ["", ":", "webhooks:", "webhooks:urgent", ":high", "hooks"])
def test_an_invalid_queue_name_is_refused(name):
    with pytest.raises(UnknownQueue):
        lanes_of(name)
