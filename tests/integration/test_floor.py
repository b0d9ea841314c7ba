"""The fixtures themselves, and the two stores behind them."""

from sqlalchemy import text

from rqjobs.broker.connection import get_connection
from rqjobs.database import get_engine


def test_both_databases_answer(database_url):
    with get_engine().begin() as connection:
        assert connection.execute(text("SELECT 40 + 2")).scalar() == 42
    assert get_engine().dialect.name in database_url


def test_the_connection_is_the_test_server(redis):
    get_connection().set("a", 1)
    assert redis.get("a") == b"1"
