"""The dashboard, signed in to."""

from tests.integration.conftest import app, client, token

__all__ = ["app", "client", "token"]
