"""All scenarios of the chaos suite."""

from __future__ import annotations

from tests.chaos import faults_outside as outside
from tests.chaos import faults_redis as redis
from tests.chaos import faults_workers as workers
from tests.chaos.faults_workers import no_faketime
from tests.chaos.feeder import MIX
from tests.chaos.run import Scenario

FORGETFUL = {"RQJOBS_KEEP_COMPLETED": "1"}
"""Done jobs have no hash any more, as those beyond the last 100 at a high rate: it recognises no resent call."""

SCENARIOS = [
    Scenario("worker-kill", workers.workers_killed),
    Scenario("worker-term", workers.workers_restarted),
    Scenario("worker-stop", workers.workers_stopped),
    Scenario("worker-kill-stop", workers.workers_killed_and_stopped, short=True),
    Scenario("redis-kill", redis.redis_killed),
    Scenario("redis-full", redis.redis_full),
    Scenario("redis-client-kill", redis.connections_killed),
    Scenario("redis-script-flush", redis.scripts_flushed),
    Scenario("proxy-cut", redis.proxy_cut, redis="proxy", settings=FORGETFUL, short=True),
    Scenario("proxy-lost-replies", redis.proxy_replies_lost, redis="proxy", settings=FORGETFUL),
    Scenario("proxy-slow", redis.proxy_slow, redis="proxy"),
    Scenario("proxy-half-open", redis.proxy_half_open, redis="proxy"),
    Scenario("sentinel-failover", redis.failover_planned, redis="sentinel"),
    Scenario("sentinel-failover-bare", redis.failover_bare, redis="sentinel"),
    Scenario("sentinel-kill", redis.primary_killed, redis="sentinel"),
    Scenario("postgres-away", outside.postgres_away, database="postgres", attempts=1, short=True),
    Scenario("sqlite-full", outside.disk_full, database="small", attempts=1, missing=outside.no_mount),
    Scenario("smtp-away", outside.smtp_away, attempts=1),
    Scenario("mail-401", outside.mail_key_revoked, attempts=1, mail="sendgrid", short=True),
    Scenario("mail-403", outside.mail_key_revoked, attempts=1, mail="resend"),
    Scenario("manychat-401", outside.manychat_token_revoked, attempts=1, mix=MIX | {"chat": 4}),
    Scenario("manychat-500", outside.manychat_broken, attempts=1, mix=MIX | {"chat": 4}),
    Scenario("dns-away", outside.names_unanswered, attempts=1, mix=MIX | {"named": 40}),
    Scenario("export-store-away", outside.export_store_away, attempts=1, mix=MIX | {"export": 4}),
    Scenario("worker-clock-ahead", workers.clock_of_a_worker(600), mix=MIX | {"far": 5}, missing=no_faketime),
    Scenario("worker-clock-behind", workers.clock_of_a_worker(-600), mix=MIX | {"far": 5}, missing=no_faketime),
    Scenario("app-clock-ahead", workers.nothing, feeder=workers.clock(600), missing=no_faketime),
    Scenario("app-clock-behind", workers.nothing, feeder=workers.clock(-600), missing=no_faketime),
    # A lease within which the watcher can end a frozen worker.
    Scenario("frozen-interpreter", workers.poison("regex"), settings={"RQJOBS_LEASE": "15s"}),
    Scenario("segfault", workers.poison("segfault")),
    Scenario("memory", workers.poison("memory"), memory=4 << 30),
]
