"""API keys against a real database: what is remembered, what is refused, what guessing costs."""

import asyncio
import secrets

import pytest

from predictor.core.account import KeyLimits, Limits
from predictor.core.problems import QuotaExceeded, StoreUnavailable, Unauthenticated
from predictor.edge import auth
from predictor.edge.auth import Authenticator
from predictor.edge.settings import EdgeSettings
from predictor.edge.stores.database import Database
from predictor.edge.stores.keys import Keys
from predictor.edge.stores.quotas import GUESSES, Quotas
from predictor.edge.stores.windows import MemoryWindows

HERE, THERE = "192.0.2.1", "192.0.2.2"


class Clock:
    now = 1_700_000_000.0

    def __call__(self):
        return self.now


class Counted(Keys):
    """The real keys, and how often they were asked for."""

    asked = 0
    away = False

    async def find(self, secret, now=None):
        self.asked += 1
        if self.away:
            raise StoreUnavailable("the database does not answer", retry_after=2.0)
        return await super().find(secret, now)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def keys(tmp_path):
    database = await Database.open(f"sqlite:///{tmp_path / 'sdzero.db'}")
    yield Counted(database)
    await database.close()


@pytest.fixture
def authenticate(keys, clock):
    settings = EdgeSettings(predictor_url="http://predictor", megapixel_steps_per_minute=100, concurrent_jobs=4)
    return Authenticator(settings, keys, Quotas(MemoryWindows(), "closed", lambda: None), clock)


@pytest.fixture
async def made(keys, clock):
    """A key and its secret."""
    return await keys.create(
        tenant="acme", name="ci", scopes=("generate",), limits=KeyLimits(concurrent_jobs=9), policy="low", now=clock.now
    )


def a_guess():
    return f"sk-sdz-{secrets.token_urlsafe(32)}"


def bearer(secret):
    return f"Bearer {secret}"


async def test_a_key_says_who_asks_and_what_it_may(authenticate, made):
    key, secret = made
    caller = await authenticate(bearer(secret), None, HERE)
    assert (caller.key_id, caller.tenant, caller.scopes, caller.policy) == (key.id, "acme", {"generate"}, "low")
    assert caller.limits == Limits(megapixel_steps_per_minute=100, concurrent_jobs=9)
    assert await authenticate(None, secret, HERE) == caller
    assert await authenticate(f"bearer  {secret} ", secret, HERE) == caller
    assert await authenticate("Basic YTpi", secret, HERE) == caller, "a proxy's header is not ours"


@pytest.mark.parametrize(
    ("authorization", "api_key", "words"),
    [
        (None, None, "no API key; send"),
        ("", "", "not a bearer's; send"),
        ("Bearer", None, "not a bearer's; send"),
        ("Bearer ", None, "not a bearer's; send"),
        ("Basic c2VjcmV0", None, "not a bearer's; send"),
        ("sk-sdz-secret", None, "not a bearer's; send"),
        ("Bearer sk-sdz-secret", "sk-sdz-another", "Authorization and x-api-key: they differ"),
        ("Bearer sk-sdz-secret", None, "unknown, revoked or expired; send"),
        ("Bearer secret.secret.secret", None, "unknown, revoked or expired; send"),
        (None, "secret" * 10000, "unknown, revoked or expired; send"),
        (None, "secret\xff\x00", "unknown, revoked or expired; send"),
    ],
)
async def test_what_is_no_key_is_refused_without_showing_it(authenticate, authorization, api_key, words):
    with pytest.raises(Unauthenticated) as caught:
        await authenticate(authorization, api_key, HERE)
    assert words in caught.value.message
    assert "secret" not in caught.value.message
    assert "c2Vj" not in caught.value.message


async def test_a_key_is_asked_for_once_in_ten_seconds(authenticate, keys, made, clock):
    await asyncio.gather(*(authenticate(bearer(made[1]), None, HERE) for _ in range(200)))
    clock.now += 9.9
    await authenticate(bearer(made[1]), None, HERE)
    assert keys.asked == 1
    clock.now += 0.1
    await authenticate(bearer(made[1]), None, HERE)
    assert keys.asked == 2


async def test_a_revoked_key_is_refused_within_ten_seconds(authenticate, keys, made, clock):
    key, secret = made
    await authenticate(bearer(secret), None, HERE)
    await keys.revoke(key.id, now=clock.now)
    clock.now += 10
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await authenticate(bearer(secret), None, HERE)
    assert keys.asked == 2


async def test_a_key_ends_to_the_second_though_it_is_remembered(authenticate, keys, clock):
    _, secret = await keys.create(tenant="acme", name="brief", now=clock.now, expires=clock.now + 5)
    await authenticate(bearer(secret), None, HERE)
    clock.now += 5
    with pytest.raises(Unauthenticated):
        await authenticate(bearer(secret), None, HERE)


async def test_a_clock_that_is_put_back_keeps_no_revoked_key(authenticate, keys, made, clock):
    await authenticate(bearer(made[1]), None, HERE)
    await keys.revoke(made[0].id, now=clock.now)
    clock.now -= 3600
    with pytest.raises(Unauthenticated):
        await authenticate(bearer(made[1]), None, HERE)


async def test_a_wrong_key_that_comes_again_and_again_costs_one_query(authenticate, keys, made, clock):
    """A client with an old key in its settings is not a guesser."""
    wrong = a_guess()
    for _ in range(100):
        with pytest.raises(Unauthenticated):
            await authenticate(bearer(wrong), None, HERE)
    assert keys.asked == 1


async def test_ten_thousand_guesses_cost_twenty_queries(authenticate, keys):
    refused = await asyncio.gather(
        *(authenticate(bearer(a_guess()), None, HERE) for _ in range(10_000)), return_exceptions=True
    )
    assert keys.asked == GUESSES
    kinds = [type(problem) for problem in refused]
    assert (kinds.count(Unauthenticated), kinds.count(QuotaExceeded)) == (GUESSES, 10_000 - GUESSES)
    assert all(problem.retry_after > 0 for problem in refused if isinstance(problem, QuotaExceeded))


async def test_a_guesser_shuts_nobody_out_but_itself(authenticate, keys, made, clock):
    _, other = await keys.create(tenant="acme", name="other", now=clock.now)
    await authenticate(bearer(made[1]), None, HERE)
    for _ in range(GUESSES):
        with pytest.raises(Unauthenticated):
            await authenticate(bearer(a_guess()), None, HERE)
    await authenticate(bearer(other), None, THERE)
    # Behind one address with the guesser: a key that was good before goes on, remembered or not.
    await authenticate(bearer(made[1]), None, HERE)
    clock.now += 60
    await authenticate(bearer(made[1]), None, HERE)
    with pytest.raises(QuotaExceeded):
        await authenticate(bearer(a_guess()), None, HERE)


async def test_guesses_from_many_addresses_take_bounded_memory(authenticate, keys, made, monkeypatch):
    monkeypatch.setattr(auth, "MOST", 50)
    await authenticate(bearer(made[1]), None, HERE)
    for number in range(200):
        with pytest.raises(Unauthenticated):
            await authenticate(bearer(a_guess()), None, f"198.51.100.{number}")
    assert len(authenticate._unknown) == 50
    assert len(authenticate._turns) == 0
    asked = keys.asked
    await authenticate(bearer(made[1]), None, HERE)
    assert keys.asked == asked, "guesses push out no key"


async def test_a_database_that_is_away_is_no_wrong_key(authenticate, keys, made):
    keys.away = True
    for _ in range(2 * GUESSES):
        with pytest.raises(StoreUnavailable):
            await authenticate(bearer(made[1]), None, HERE)
    keys.away = False
    await authenticate(bearer(made[1]), None, HERE)


async def test_on_ones_own_machine_nobody_is_asked(keys):
    settings = EdgeSettings(predictor_url="http://predictor", auth="none", concurrent_jobs=4)
    authenticate = Authenticator(settings, keys, Quotas(MemoryWindows(), "closed", lambda: None))
    for sent in (None, "Bearer whatever", "nonsense"):
        caller = await authenticate(sent, None, HERE)
        assert (caller.key_id, caller.tenant, caller.policy) == ("local", "local", "default")
        assert caller.scopes == {"generate", "read", "admin"}
        assert caller.limits == Limits(concurrent_jobs=4)
    assert keys.asked == 0
