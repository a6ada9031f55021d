"""Who asks: the holder of an API key, the bearer of an OpenID token or, on one's own machine, anybody.

secret ─► answered in the last 10 s? ─► has the address guessed too often? ─► the database ─► Caller
          └ yes: the same again          └ yes: 429                                        └ unknown: a guess
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from predictor.core.account import SCOPES, Caller
from predictor.core.problems import StoreUnavailable, Unauthenticated
from predictor.edge.settings import EdgeSettings
from predictor.edge.stores.keys import Key, Keys
from predictor.edge.stores.quotas import Quotas

if TYPE_CHECKING:
    from predictor.edge.oidc import Tokens

REMEMBERED = 10.0  # seconds: how long a revoked key may go on
MOST = 4096  # keys, and as many guesses, that are remembered
PATIENCE = 10.0  # seconds to wait for others of the same address
Answer = TypeVar("Answer")
HOWTO = "send `Authorization: Bearer KEY` or `x-api-key: KEY`; `sdzero keys create` makes keys"


class Authenticator:
    """Tells callers by what they send.

    Args:
        settings: whether anybody is asked, by which provider's tokens as well, and the limits of who has no own.
        keys: asked for each secret, at most every ten seconds.
        quotas: counts the guesses of each address.
        clock: seconds since the epoch.
    """

    def __init__(
        self, settings: EdgeSettings, keys: Keys, quotas: Quotas, clock: Callable[[], float] = time.time
    ) -> None:
        self._open = settings.auth == "none"
        self._limits = settings.limits
        self._keys = keys
        self._quotas = quotas
        self._clock = clock
        self._tokens = _tokens(settings)
        # By the hash of the secret, so that no secret is kept, nor compared byte for byte. Guesses have a memory of
        # their own: however many there are, they push no key out.
        self._known: OrderedDict[bytes, tuple[float, Key]] = OrderedDict()
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, authorization: str | None, api_key_header: str | None, address: str) -> Caller:
        """The caller.

        Args:
            authorization: the header of that name.
            api_key_header: the header `x-api-key`.
            address: the client's, by which guesses are counted.

        Raises:
            Unauthenticated: nothing came, or nothing that is valid now.
            QuotaExceeded: the address has guessed too often.
            StoreUnavailable: the database, the guesses' store or the provider does not answer.
        """
        if self._open:
            return Caller(key_id="local", tenant="local", scopes=frozenset(SCOPES), limits=self._limits)
        secret = _secret(authorization, api_key_header)
        # A token cannot be guessed, and costs no query: it is not counted.
        if self._tokens is not None and secret.count(".") == 2:
            return await self._tokens.caller(secret)
        key = await self._key(secret, address)
        return Caller(
            key_id=key.id,
            tenant=key.tenant,
            scopes=key.scopes,
            limits=key.limits.over(self._limits),
            policy=key.policy,
        )

    async def _key(self, secret: str, address: str) -> Key:
        digest = hashlib.sha256(secret.encode()).digest()
        if key := self._remembered(digest):
            return key
        async with self._turn_of(address):
            if key := self._remembered(digest):
                return key
            # A key that was good goes on to be asked for: its holder may share the address with who guesses.
            if digest not in self._known:
                await self._quotas.blocked(address)
            now = self._clock()
            key = await self._keys.find(secret, now)
            if key is not None:
                _remember(self._known, digest, (now, key))
                return key
            self._known.pop(digest, None)
            _remember(self._unknown, digest, now)
            await self._quotas.guess(address)
            raise _refused()

    def _remembered(self, digest: bytes) -> Key | None:
        """The key of a secret that was asked for lately; None: to be asked for."""
        now = self._clock()
        asked, key = self._known.get(digest, (float("-inf"), None))
        if key is not None and _lately(asked, now):
            self._known.move_to_end(digest)
            if not key.valid(now):
                raise _refused()
            return key
        if _lately(self._unknown.get(digest, float("-inf")), now):
            raise _refused()
        return None

    @asynccontextmanager
    async def _turn_of(self, address: str) -> AsyncIterator[None]:
        """One query at a time for each address; a thousand guesses at once would all come before the first counts."""
        turn = self._turns.setdefault(address, asyncio.Lock())
        try:
            async with asyncio.timeout(PATIENCE):
                await turn.acquire()
        except TimeoutError:
            raise StoreUnavailable("the database does not answer", retry_after=2.0) from None
        try:
            yield
        finally:
            turn.release()


def _tokens(settings: EdgeSettings) -> "Tokens | None":
    if not settings.oidc_issuer:
        return None
    from predictor.edge.oidc import Tokens  # cryptography: time and memory that an edge with API keys alone keeps

    return Tokens(settings.oidc_issuer, settings.oidc_audience, settings.oidc_tenant_claim, settings.limits)


def _secret(authorization: str | None, api_key_header: str | None) -> str:
    scheme, _, bearer = (authorization or "").partition(" ")
    bearer = bearer.strip() if scheme.lower() == "bearer" else ""
    if api_key_header and bearer and api_key_header != bearer:
        raise Unauthenticated("Authorization and x-api-key: they differ; allowed: one of them")
    if secret := api_key_header or bearer:
        return secret
    # The header is not shown: who forgets the word Bearer has sent the secret alone.
    came = "no API key" if authorization is None else "Authorization: not a bearer's"
    raise Unauthenticated(f"{came}; {HOWTO}")


def _refused() -> Unauthenticated:
    return Unauthenticated(f"the API key is unknown, revoked or expired; {HOWTO}")


def _lately(then: float, now: float) -> bool:
    return 0 <= now - then < REMEMBERED  # a clock that was put back ends it as well


def _remember(memory: OrderedDict[bytes, Answer], digest: bytes, answer: Answer) -> None:
    memory[digest] = answer
    memory.move_to_end(digest)
    if len(memory) > MOST:
        memory.popitem(last=False)
