"""Tokens of an OpenID provider (OpenID Connect Core 1.0 and Discovery 1.0; RFC 7519, tokens; RFC 7517, keys).

token ─► RS256, ES256 or EdDSA? ─► the provider's key of that id ─► signature, iss, aud, exp ─► Caller
                                   └ unknown: fetched again, at most once a minute
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import msgspec
import structlog

from predictor.core.account import SCOPES, Caller, Limits, Scope
from predictor.core.problems import StoreUnavailable, Unauthenticated, shown

log = structlog.get_logger("sdzero.edge")

# Signatures that only the provider can make. HS256 would take its public key for a secret; `none` takes anything.
ALGORITHMS = ("RS256", "ES256", "EdDSA")
LEEWAY = 30.0  # seconds that two machines' clocks may differ
LONGEST_TOKEN = 8192  # characters
LONGEST_CLAIM = 200  # characters of a subject or a tenant

AGED = 3600.0  # seconds after which the keys are fetched again
AGAIN = 60.0  # seconds between two fetches while keys are there
FIRST_AGAIN = 5.0  # seconds between two fetches while none are
PATIENCE = 10.0  # seconds for both documents of a fetch
LARGEST_DOCUMENT = 2**20  # bytes
DEFAULT_SCOPES: frozenset[Scope] = frozenset(("generate", "read"))


class Discovery(msgspec.Struct):
    """What we need of the provider's own description (Discovery §3)."""

    issuer: str
    jwks_uri: str


class KeySet(msgspec.Struct):
    """RFC 7517 §5."""

    keys: list[dict[str, Any]]


class Provider:
    """The provider's public keys: fetched when they are asked for, kept while it is away."""

    def __init__(self, issuer: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._clock = clock
        self._keys: list[jwt.PyJWK] = []
        self._fetched = self._tried = float("-inf")
        self._turn = asyncio.Lock()

    async def key(self, id: str | None, algorithm: str) -> jwt.PyJWK:
        """The key of that id for that algorithm; without an id, the only one for it.

        Raises:
            Unauthenticated: the provider has none.
            StoreUnavailable: the provider was never reached.
        """
        found = self._find(id, algorithm)
        # Known keys serve while somebody else asks whether they still stand; without one, wait for the answer.
        if found is None or (self._aged() and not self._turn.locked()):
            async with self._turn:
                if self._due(self._find(id, algorithm)):
                    await self._fetch()
            found = self._find(id, algorithm)
        if found is not None:
            return found
        if not self._keys:
            raise StoreUnavailable("the OpenID provider does not answer", retry_after=FIRST_AGAIN)
        raise Unauthenticated(f"token: the provider has no {algorithm} key with the id {shown(id)}")

    def _find(self, id: str | None, algorithm: str) -> jwt.PyJWK | None:
        fit = [key for key in self._keys if key.algorithm_name == algorithm and id in (None, key.key_id)]
        return fit[0] if len(fit) == 1 or (fit and id is not None) else None

    def _aged(self) -> bool:
        return self._clock() - self._fetched >= AGED

    def _due(self, found: jwt.PyJWK | None) -> bool:
        pause = AGAIN if self._keys else FIRST_AGAIN
        return (found is None or self._aged()) and self._clock() - self._tried >= pause

    async def _fetch(self) -> None:
        self._tried = self._clock()
        try:
            async with asyncio.timeout(PATIENCE), httpx.AsyncClient(follow_redirects=False) as client:
                address = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
                discovery = msgspec.json.decode(await _get(client, address), type=Discovery)
                if discovery.issuer != self._issuer:  # Discovery §4.3
                    raise ValueError(f"it calls itself {discovery.issuer!r}")
                if self._issuer.startswith("https:") and not discovery.jwks_uri.startswith("https:"):
                    raise ValueError(f"its keys are at {discovery.jwks_uri!r}, without TLS")
                keys = _usable(msgspec.json.decode(await _get(client, discovery.jwks_uri), type=KeySet))
                if not keys:
                    raise ValueError(f"it has no key for {', '.join(ALGORITHMS)}")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, msgspec.MsgspecError) as error:
            log.warning("no keys of the OpenID provider", issuer=self._issuer, kept=len(self._keys), error=repr(error))
            return
        self._keys, self._fetched = keys, self._clock()


class Tokens:
    """Turns tokens into callers.

    Args:
        issuer: the provider's address, as its tokens name it.
        audience: what a token's `aud` must name.
        tenant_claim: the claim that becomes the caller's tenant.
        limits: of every bearer.
        clock: monotonic seconds, for the age of the provider's keys.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        tenant_claim: str,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._tenant_claim = tenant_claim
        self._limits = limits
        self._provider = Provider(issuer, clock)

    async def caller(self, token: str) -> Caller:
        """The token's bearer.

        Raises:
            Unauthenticated: it is not a token of the provider for us, or its time is over.
            StoreUnavailable: the provider was never reached.
        """
        if len(token) > LONGEST_TOKEN:
            raise Unauthenticated(f"token: got {len(token)} characters; allowed: at most {LONGEST_TOKEN}")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthenticated("token: it cannot be read as a JSON Web Token") from None
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise Unauthenticated(f"token: got the algorithm {shown(algorithm)}; allowed: {', '.join(ALGORITHMS)}")
        key = await self._provider.key(header.get("kid"), algorithm)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["iss", "aud", "exp", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"token: {error}") from None
        return Caller(
            key_id=f"oidc:{_name(claims, 'sub')}",
            # Apart from the tenants of keys: at some providers users choose what they are called.
            tenant=f"oidc:{_name(claims, self._tenant_claim)}",
            scopes=_scopes(claims),
            limits=self._limits,
        )


def _name(claims: dict[str, Any], claim: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_CLAIM or not value.isprintable():
        came = f"got {shown(value)}" if claim in claims else "missing"
        raise Unauthenticated(f"token: claim {claim}: {came}; allowed: 1 to {LONGEST_CLAIM} printable characters")
    return value


def _scopes(claims: dict[str, Any]) -> frozenset[Scope]:
    """`sdzero:generate` and so on from the claim `scope` (RFC 8693 §4.2); a token that names none of ours may both."""
    value = claims.get("scope", "")
    if not isinstance(value, str):
        raise Unauthenticated(f"token: claim scope: got {shown(value)}; allowed: names with spaces between them")
    ours = {name.removeprefix("sdzero:") for name in value.split() if name.startswith("sdzero:")}
    if unknown := ours.difference(SCOPES):
        allowed = ", ".join(f"sdzero:{scope}" for scope in SCOPES)
        raise Unauthenticated(f"token: claim scope: got {shown(f'sdzero:{min(unknown)}')}; allowed: {allowed}")
    return frozenset(scope for scope in SCOPES if scope in ours) or DEFAULT_SCOPES


def _usable(found: KeySet) -> list[jwt.PyJWK]:
    """The keys that sign what we take. Others are not ours to judge: a provider may also encrypt, or be ahead of us."""
    keys = []
    for data in found.keys:
        try:
            key = jwt.PyJWK(data)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        if key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig"):
            keys.append(key)
    return keys


async def _get(client: httpx.AsyncClient, address: str) -> bytes:
    async with client.stream("GET", address, headers={"accept": "application/json"}) as response:
        if response.status_code != 200:
            raise ValueError(f"{address}: HTTP {response.status_code}")
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > LARGEST_DOCUMENT:
                raise ValueError(f"{address}: more than {LARGEST_DOCUMENT} bytes")
        return body
