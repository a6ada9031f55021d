"""Webhooks as https://www.standardwebhooks.com specifies them: signed, delivered at least once.

outbox ─► claimed by a lease ─► POST ─► 2xx: delivered
                                        410, or 3 days old: dead
                                        anything else: again after 5 s, 10 s, 20 s, … 1 h, with the same id and body
"""

import asyncio
import base64
import hashlib
import hmac
import random
import re
import time
from collections.abc import Callable
from typing import Literal

import httpx
import structlog

from predictor.core.problems import InvalidField, StoreUnavailable
from predictor.edge.metrics import Metrics
from predictor.edge.outbound import UNKEPT, NotPublic, PublicTransport
from predictor.edge.stores.outbox import Delivery, Outbox

log = structlog.get_logger("sdzero.edge")

LONGEST_URL = 2048  # characters
HOST = re.compile(rb"[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9_])?\.?|[0-9a-f:.]{2,45}")  # a name, or an IPv6 address
URL_RULE = f"http:// or https:// and a host, at most {LONGEST_URL} characters, no user name, password or fragment"

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 3600.0  # seconds
GIVEN_UP = 3 * 86400.0  # seconds after which a receiver that never answered is given up
TRY = 10.0  # seconds from resolving the name to the status line
LEASE = 60.0  # seconds: a try, and a database that is slow to hear of it
AT_ONCE = 32
POLL = 1.0  # seconds between two looks into an empty outbox


def webhook_url(text: str) -> str:
    """The URL as it came, if a webhook may be sent there. Where its host is, is checked when it is connected to.

    Raises:
        InvalidField: it is not such a URL.
    """
    if len(text) > LONGEST_URL:
        raise InvalidField.because("webhook_url", f"got {len(text)} characters", URL_RULE)
    try:
        url = httpx.URL(text)
        host = url.raw_host
    except (httpx.InvalidURL, ValueError):  # IDNA's errors are ValueErrors
        raise InvalidField.of("webhook_url", text, URL_RULE) from None
    if url.userinfo:
        raise InvalidField.because("webhook_url", "it holds a user name or password", URL_RULE)
    port_fits = url.port is None or 0 < url.port < 2**16
    if url.scheme not in ("http", "https") or not HOST.fullmatch(host) or not port_fits or "#" in text:
        raise InvalidField.of("webhook_url", text, URL_RULE)
    return text


def pause(attempts: int, luck: float) -> float:
    """Seconds until the next try.

    Args:
        attempts: tries so far, at least 1.
        luck: 0 to 1, drawn evenly, so that what failed together does not come back together.
    """
    longest = min(FIRST_PAUSE * 2.0 ** min(attempts - 1, 32), LONGEST_PAUSE)
    return longest * (0.5 + 0.5 * luck)


class Signer:
    """Signs with a secret per tenant, derived from the deployment's."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def secret(self, tenant: str) -> str:
        """What the tenant's receivers verify with."""
        return f"whsec_{base64.b64encode(self._key(tenant)).decode()}"

    def headers(self, tenant: str, id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """Id, time in seconds since the epoch, and the signature of both and the body."""
        signed = hmac.digest(self._key(tenant), f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
        return {
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        }

    def _key(self, tenant: str) -> bytes:
        return hmac.digest(self._secret, f"webhook:{tenant}".encode(), hashlib.sha256)


def transport(networks: Literal["public", "any"]) -> httpx.AsyncBaseTransport:
    """What may reach these networks."""
    return PublicTransport() if networks == "public" else httpx.AsyncHTTPTransport(limits=UNKEPT)


class Deliverer:
    """Empties the outbox, for as long as `run` runs.

    Args:
        owner: the name of this process, in leases.
        networks: where webhooks may go.
        via: sends, instead of a transport for `networks`.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        outbox: Outbox,
        signer: Signer,
        owner: str,
        networks: Literal["public", "any"],
        metrics: Metrics,
        *,
        via: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._signer = signer
        self._owner = owner
        self._via = via or transport(networks)
        self._metrics = metrics
        self._clock = clock

    async def run(self) -> None:
        """Deliver what is due, until cancelled. What was on its way then is sent again by the next one."""
        under_way: set[asyncio.Task[None]] = set()
        async with self._client() as client, asyncio.TaskGroup() as group:
            while True:
                # One slow receiver holds one place, not the turn of everybody.
                claimed = await self._claim(AT_ONCE - len(under_way))
                for delivery in claimed:
                    task = group.create_task(self._deliver(client, delivery))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                if len(under_way) == AT_ONCE:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(POLL)

    def _client(self) -> httpx.AsyncClient:
        # A proxy of the environment would resolve names itself; a redirect would be a second URL, chosen unseen.
        return httpx.AsyncClient(transport=self._via, timeout=TRY, follow_redirects=False, trust_env=False)

    async def _claim(self, limit: int) -> list[Delivery]:
        now = self._clock()
        try:
            return await self._outbox.claim(self._owner, now + LEASE, now, limit)
        except StoreUnavailable:
            return []
        except Exception:
            log.exception("bug")
            return []

    async def _deliver(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        # If it stays unsettled, its lease ends, and it is sent again.
        try:
            await self._settle(delivery, *await self._post(client, delivery))
        except StoreUnavailable:
            log.warning("webhook unsettled", id=delivery.id, job=delivery.job_id)
        except Exception:
            log.exception("bug", id=delivery.id, job=delivery.job_id)

    async def _post(self, client: httpx.AsyncClient, delivery: Delivery) -> tuple[int | None, str]:
        """The answer's status, or why there was none."""
        signed = self._signer.headers(delivery.tenant, delivery.id, int(self._clock()), delivery.body)
        headers = signed | {"content-type": "application/json", "user-agent": "sdzero"}
        try:
            async with (
                asyncio.timeout(TRY),
                client.stream("POST", delivery.url, content=delivery.body, headers=headers) as response,
            ):
                return response.status_code, f"HTTP {response.status_code}"  # its body is not read
        except TimeoutError:
            return None, f"no answer within {TRY:g} s"
        except NotPublic as error:
            return None, str(error)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            return None, f"{type(error).__name__}: {error}"[:500]

    async def _settle(self, delivery: Delivery, status: int | None, error: str) -> None:
        facts = {"id": delivery.id, "job": delivery.job_id, "attempts": delivery.attempts, "outcome": error}
        now = self._clock()
        if status is not None and 200 <= status < 300:
            await self._outbox.delivered(delivery.id)
            self._metrics.deliveries.labels("delivered").inc()
            log.info("webhook delivered", **facts)
        elif status == 410 or now - delivery.created >= GIVEN_UP:
            await self._outbox.dead(delivery.id, error)
            self._metrics.deliveries.labels("dead").inc()
            log.warning("webhook given up", **facts)
        else:
            # Luck spreads load, it hides nothing.
            await self._outbox.retry(delivery.id, now + pause(delivery.attempts, random.random()), error)  # noqa: S311
            self._metrics.deliveries.labels("failed").inc()
            log.info("webhook failed", **facts)
