"""The way to Redis: few connections, short timeouts, and a pause after a failure.

Nothing that is kept in Redis is worth a client's time when Redis does not answer. So nothing here tries twice, and for
a second after a failed connection nobody tries at all.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from predictor.edge.stores.windows import Away

__all__ = ["Away", "RedisLink", "connected"]
log = structlog.get_logger("sdzero.edge")

CONNECTING = 1.0  # seconds
ANSWERING = 1.0  # seconds, of one command, and of waiting for one of the connections
CONNECTIONS = 16  # of one process
PAUSE = 1.0  # seconds after a failure
KINDS = ("redis://", "rediss://", "unix://")


class RedisLink:
    """One for each edge process. Connections are made when they are needed, and made anew when Redis was restarted."""

    def __init__(self, url: str) -> None:
        """Say where Redis is.

        Args:
            url: `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://…` with TLS, or `unix://PATH`.

        Raises:
            ValueError: not such an address.
        """
        if not url.startswith(KINDS):
            raise ValueError(f"--redis-url: got another kind of address; allowed: one that begins with {KINDS}")
        self.url = url
        try:
            self._redis = connected(url, CONNECTIONS, ANSWERING)
        except ValueError:
            # It would quote a password with a slash.
            raise ValueError(
                "--redis-url: cannot be read as an address; allowed: redis://USER:PASSWORD@HOST:PORT/DATABASE, with "
                "%2F, %3F, %23 and %40 for the characters / ? # @ of a password"
            ) from None
        self._paused_until = 0.0

    @asynccontextmanager
    async def asking(self) -> AsyncGenerator[Redis]:
        """A client for some commands.

        Raises:
            Away: they failed, or Redis was found away within the last second.
        """
        if time.monotonic() < self._paused_until:
            raise Away("redis was away a moment ago")
        try:
            yield self._redis
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
            self._paused_until = time.monotonic() + PAUSE
            log.warning("redis away", cause=type(error).__name__, said=str(error))
            raise Away("redis does not answer") from error
        except exceptions.RedisError as error:
            # It is there, and refuses: out of memory, or a replica that cannot be written to.
            log.warning("redis refused", cause=type(error).__name__, said=str(error))
            raise Away("redis refused a command") from error

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()


def connected(url: str, connections: int, answering: float) -> Redis:
    """A client of at most that many connections, whose commands fail after `answering` seconds and are not retried."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=ANSWERING,
        socket_connect_timeout=CONNECTING,
        socket_timeout=answering,
        retry=Retry(NoBackoff(), 0),
        client_name="sdzero-edge",
        # Of Redis Enterprise: it would ask at every connect, and no longer see that an idle connection was closed.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return Redis.from_pool(pool)
