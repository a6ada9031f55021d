"""Tokens of a real OpenID provider on localhost: its keys change, it goes away, and others forge what it makes."""

import asyncio
import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from predictor.core.account import Limits
from predictor.core.problems import StoreUnavailable, Unauthenticated
from predictor.edge.auth import Authenticator
from predictor.edge.oidc import Tokens
from predictor.edge.settings import EdgeSettings
from tests.edge.http_servers import Answer, web

WRITERS = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}
LIMITS = Limits(concurrent_jobs=4)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def new_key(algorithm):
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def public(key, algorithm, id, **more):
    return WRITERS[algorithm].to_jwk(key.public_key(), as_dict=True) | {"kid": id} | more


class Provider:
    """An OpenID provider; `published` is its key set, and `up` whether it answers."""

    def __init__(self):
        self.private = {algorithm: new_key(algorithm) for algorithm in WRITERS}
        self.published = [public(key, algorithm, algorithm) for algorithm, key in self.private.items()]
        self.up = True
        self.says = {}
        self.issuer = ""

    def answer(self, came):
        if not self.up:
            return Answer(503)
        if came.path == "/realm/.well-known/openid-configuration":
            found = {"issuer": self.issuer, "jwks_uri": self.issuer.replace("realm", "keys")} | self.says
        else:
            assert came.path == "/keys"
            found = {"keys": self.published}
        return Answer(200, json.dumps(found).encode(), {"content-type": "application/json"})

    def claims(self, **changes):
        claims = {"iss": self.issuer, "aud": "sdzero", "sub": "ada", "exp": time.time() + 60} | changes
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, algorithm="ES256", kid=..., key=None, **changes):
        headers = {} if kid is None else {"kid": algorithm if kid is ... else kid}
        return jwt.encode(self.claims(**changes), key or self.private[algorithm], algorithm, headers)


@pytest.fixture(scope="module")
def made():
    return Provider()


@pytest.fixture
def provider(made):
    made.up, made.says = True, {}
    made.published = [public(key, algorithm, algorithm) for algorithm, key in made.private.items()]
    with web(made.answer) as here:
        made.issuer = f"{here.url}/realm"
        made.came = here.came
        yield made


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tokens(provider, clock):
    return Tokens(provider.issuer, "sdzero", "sub", LIMITS, clock)


def fetches(provider):
    return [came.path for came in provider.came].count("/keys")


async def refusal(tokens, token):
    with pytest.raises(Unauthenticated, match=r"^token: ") as caught:
        await tokens.caller(token)
    assert token[-20:] not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("algorithm", WRITERS)
async def test_a_token_says_who_asks(provider, tokens, algorithm):
    caller = await tokens.caller(provider.token(algorithm))
    assert (caller.key_id, caller.tenant, caller.limits, caller.policy) == ("oidc:ada", "oidc:ada", LIMITS, "default")
    assert caller.scopes == {"generate", "read"}


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("sdzero:read", {"read"}),
        ("openid sdzero:generate profile sdzero:admin", {"generate", "admin"}),
        ("openid email", {"generate", "read"}),
        ("", {"generate", "read"}),
    ],
)
async def test_scopes_are_the_tokens(provider, tokens, scope, scopes):
    assert (await tokens.caller(provider.token(scope=scope))).scopes == scopes


async def test_a_scope_that_is_none_of_ours_is_refused(provider, tokens):
    said = await refusal(tokens, provider.token(scope="sdzero:everything"))
    assert said == ("token: claim scope: got 'sdzero:everything'; allowed: sdzero:generate, sdzero:read, sdzero:admin")
    assert "claim scope: got ['sdzero:admin']" in await refusal(tokens, provider.token(scope=["sdzero:admin"]))


async def test_the_tenant_is_the_claim_that_the_settings_name(provider, clock):
    tokens = Tokens(provider.issuer, "sdzero", "org", LIMITS, clock)
    assert (await tokens.caller(provider.token(org="acme"))).tenant == "oidc:acme"
    assert "claim org: missing; allowed: 1 to 200" in await refusal(tokens, provider.token())
    for wrong in ("", "a\nb", "a" * 201, 7, ["acme"], {"acme": 1}):
        assert "claim org: got" in await refusal(tokens, provider.token(org=wrong))


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"},
        {"aud": ["another", "third"]},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": -31},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": 600},
        {"iat": 600},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\x00b"},
    ],
    ids=str,
)
async def test_a_token_that_is_not_for_us_or_not_for_now_is_refused(provider, tokens, changes):
    now = time.time()  # of this test: the parameters were made when pytest read the file
    times = {name: now + value for name, value in changes.items() if isinstance(value, int)}
    await refusal(tokens, provider.token(**changes | times))


async def test_clocks_may_differ_by_half_a_minute(provider, tokens):
    await tokens.caller(provider.token(exp=time.time() - 20))
    await tokens.caller(provider.token(nbf=time.time() + 20, aud=["x", "sdzero"]))


def encoded(value):
    return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=")


async def test_forgeries_are_refused(provider, tokens):
    claims = encoded(provider.claims())
    for algorithm in ("none", "None", "NONE", "", None, 7, [], "HS512", "RS512", "PS256", "ES384"):
        token = b".".join((encoded({"alg": algorithm, "kid": "RS256"}), claims, b"")).decode()
        await refusal(tokens, token)
    # The public key, which everybody has, as the secret of an HMAC.
    pem = (
        provider.private["RS256"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )

    signed = encoded({"alg": "HS256", "kid": "RS256"}) + b"." + claims
    confused = signed + b"." + encoded(hmac.digest(pem, signed, hashlib.sha256))
    assert "algorithm 'HS256'; allowed: RS256, ES256, EdDSA" in await refusal(tokens, confused.decode())
    # Somebody else's key under the provider's id, and the provider's key under another algorithm's id.
    for algorithm in WRITERS:
        said = await refusal(tokens, provider.token(algorithm, key=new_key(algorithm)))
        assert said == "token: Signature verification failed"
    await refusal(tokens, provider.token("ES256", kid="RS256"))
    # One signature, other claims.
    head, _, signature = provider.token().split(".")
    await refusal(tokens, f"{head}.{encoded(provider.claims(sub='root')).decode()}.{signature}")
    # Keys that the token brings along itself.
    evil = new_key("ES256")
    brought = {"jwk": public(evil, "ES256", "evil"), "jku": "http://evil.example", "kid": "ES256"}
    await refusal(tokens, jwt.encode(provider.claims(), evil, "ES256", brought))


@pytest.mark.parametrize(
    "token",
    [
        "..",
        "a.b.c",
        "é.é.é",
        f"{'a' * 8000}.b.c",
        f"{encoded(b'[' * 6000).decode()}.e30.e30",
        "e30.e30.e30",
        "bnVsbA.e30.e30",
    ],
    ids=lambda token: token[:10],
)
async def test_what_is_no_token_is_refused(provider, tokens, token):
    await refusal(tokens, token)
    assert provider.came == [], "the provider is not troubled with it"


async def test_a_huge_token_is_not_even_read(provider, tokens):
    said = await refusal(tokens, provider.token(padding="x" * 100_000))
    assert said.endswith("characters; allowed: at most 8192")
    assert provider.came == []


async def test_keys_are_fetched_once_however_many_ask(provider, tokens):
    token = provider.token()
    await asyncio.gather(*(tokens.caller(token) for _ in range(100)))
    assert fetches(provider) == 1


async def test_a_new_key_is_found_and_an_old_one_dropped(provider, tokens, clock):
    await tokens.caller(provider.token())
    new = new_key("ES256")
    provider.published = [public(new, "ES256", "new")]
    rotated = provider.token(key=new, kid="new")
    await refusal(tokens, rotated)  # it was fetched this very minute
    assert fetches(provider) == 1
    clock.now += 60
    await tokens.caller(rotated)
    assert fetches(provider) == 2
    assert "no ES256 key with the id 'ES256'" in await refusal(tokens, provider.token())


async def test_unknown_keys_cost_one_fetch_a_minute(provider, tokens, clock):
    await tokens.caller(provider.token())
    clock.now += 60
    for number in range(50):
        await refusal(tokens, provider.token(kid=f"unknown-{number}"))
    assert fetches(provider) == 2


async def test_keys_are_fetched_again_after_an_hour(provider, tokens, clock):
    await tokens.caller(provider.token())
    clock.now += 3599
    await tokens.caller(provider.token())
    assert fetches(provider) == 1
    clock.now += 1
    provider.published = [entry for entry in provider.published if entry["kid"] != "ES256"]
    await refusal(tokens, provider.token())
    assert fetches(provider) == 2


async def test_the_last_keys_serve_while_the_provider_is_away(provider, tokens, clock):
    await tokens.caller(provider.token())
    provider.up = False
    clock.now += 7200
    for _ in range(20):
        await tokens.caller(provider.token())
    assert len(provider.came) == 3, "asked once, in vain"
    await refusal(tokens, provider.token(kid="new"))
    provider.up = True
    clock.now += 60
    await tokens.caller(provider.token())
    assert fetches(provider) == 2


async def test_a_provider_that_was_never_there_is_no_wrong_token(provider, tokens, clock):
    provider.up = False
    for _ in range(10):
        with pytest.raises(StoreUnavailable, match="the OpenID provider does not answer") as caught:
            await tokens.caller(provider.token())
    assert caught.value.retry_after == 5.0
    assert len(provider.came) == 1
    provider.up = True
    clock.now += 5
    await tokens.caller(provider.token())


@pytest.mark.parametrize(
    "says",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": 7},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "http://127.0.0.1:1/keys"},
        {"jwks_uri": "http://[oops"},
    ],
    ids=str,
)
async def test_a_provider_that_makes_no_sense_has_no_keys(provider, tokens, says):
    provider.says = says
    with pytest.raises(StoreUnavailable):
        await tokens.caller(provider.token())


async def test_keys_that_we_do_not_take_are_passed_over(provider, tokens):
    es256 = provider.published[1]
    provider.published = [
        {},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "ES256", "alg": "HS256"},
        {"kty": "EC", "crv": "P-256", "x": "!", "y": "!", "kid": "broken"},
        {"kty": "future", "kid": "future"},
        provider.published[0] | {"use": "enc"},
        es256,
    ]
    await tokens.caller(provider.token("ES256"))
    await tokens.caller(provider.token("ES256", kid=None))
    await refusal(tokens, provider.token("RS256"))
    provider.published = []


async def test_a_token_without_a_key_id_needs_an_only_key(provider, tokens):
    provider.published.append(public(new_key("ES256"), "ES256", "second"))
    await tokens.caller(provider.token("RS256", kid=None))
    await refusal(tokens, provider.token("ES256", kid=None))


async def test_the_authenticator_tells_a_token_from_a_key(provider):
    settings = EdgeSettings(predictor_url="http://predictor", oidc_issuer=provider.issuer, concurrent_jobs=4)
    authenticate = Authenticator(settings, None, None)  # neither the keys nor the quotas are asked
    caller = await authenticate(f"Bearer {provider.token()}", None, "192.0.2.1")
    assert (caller.key_id, caller.limits) == ("oidc:ada", LIMITS)
    with pytest.raises(Unauthenticated):
        await authenticate(f"Bearer {provider.token(aud='another')}", None, "192.0.2.1")
