"""API keys: what is kept of them, and what they open."""

import asyncio
import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from predictor.core.account import SCOPES, KeyLimits, Limits
from predictor.core.problems import InvalidField, NotFound
from predictor.edge.stores.database import Database
from predictor.edge.stores.keys import SECRET, Keys
from predictor.edge.stores.ledger import Ledger

NOW = 1_700_000_000.0
FIRST = "sk-sdz-" + 43 * "1"


async def test_a_key_is_found_by_its_secret_as_it_was_made(database):
    keys = Keys(database)
    limits = KeyLimits(wakes_per_hour=2, concurrent_jobs=0)
    key, secret = await keys.create(
        tenant="studio",
        name="laptop ✓",
        scopes=("admin", "read"),
        limits=limits,
        policy="low",
        expires=NOW + 10,
        now=NOW,
    )
    assert await keys.find(secret, NOW + 9.9) == key
    assert (key.tenant, key.name, key.scopes, key.policy) == ("studio", "laptop ✓", {"admin", "read"}, "low")
    assert key.limits.over(Limits(concurrent_jobs=4, gpu_seconds_per_month=9)) == Limits(
        wakes_per_hour=2, concurrent_jobs=0, gpu_seconds_per_month=9
    )


async def test_a_key_opens_nothing_when_it_has_expired_or_was_revoked(database):
    keys = Keys(database)
    short, brief = await keys.create(tenant="a", name="short", expires=NOW + 10, now=NOW)
    assert await keys.find(brief, NOW + 10) is None
    long, secret = await keys.create(tenant="a", name="long", now=NOW + 1)
    assert await keys.find(secret, NOW + 1e9) == long
    revoked = await keys.revoke(long.id, now=NOW + 5)
    assert revoked.revoked == NOW + 5
    assert await keys.find(secret, NOW + 6) is None
    assert await keys.revoke(long.id, now=NOW + 7) == revoked
    assert await keys.list() == [short, revoked]


async def test_only_the_hash_of_a_secret_is_kept_and_no_key_shows_either(database):
    keys = Keys(database)
    key, secret = await keys.create(tenant="a", name="n", now=NOW)
    other, another = await keys.create(tenant="a", name="n", now=NOW)
    assert SECRET.fullmatch(secret)
    assert secret != another
    assert key.id != other.id
    digest = hashlib.sha256(secret.encode()).hexdigest()
    async with database.read() as connection:
        everything = [
            str(row) for table in ("keys", "ledger") for row in await connection.execute(text(f"SELECT * FROM {table}"))
        ]
    assert sum(digest in row for row in everything) == 1
    assert not any(secret in row or secret[7:] in row for row in everything)
    shown = repr(key) + msgspec.json.encode(key).decode()
    assert secret not in shown
    assert digest not in shown


async def test_the_first_key_is_stored_once_by_however_many_edges(database_url):
    databases = [await Database.open(database_url) for _ in range(4)]
    made = await asyncio.gather(*(Keys(databases[number % 4]).adopt(FIRST, NOW + number) for number in range(20)))
    (first,) = [key for key in made if key is not None]
    assert (first.tenant, first.name, first.scopes, first.policy) == ("default", "first", set(SCOPES), "default")
    keys = Keys(databases[0])
    assert await keys.list() == [await keys.find(FIRST, NOW)] == [first]
    (line,) = await Ledger(databases[0], b"secret").tail(limit=10)
    assert (line.action, line.key_id, line.facts["name"]) == ("key.create", first.id, "first")
    for database in databases:
        await database.close()


async def test_a_first_key_that_was_revoked_stays_so_and_another_is_another(database):
    keys = Keys(database)
    first = await keys.adopt(FIRST, NOW)
    await keys.revoke(first.id, now=NOW + 1)
    assert await keys.adopt(FIRST, NOW + 2) is None
    assert await keys.find(FIRST, NOW + 2) is None
    second = await keys.adopt(FIRST[:-1] + "2", NOW + 3)
    assert [key.id for key in await keys.list()] == [first.id, second.id]


async def test_every_change_has_its_line_in_the_ledger(database):
    keys = Keys(database)
    key, _ = await keys.create(tenant="a", name="laptop", now=NOW, request_id="r1")
    await keys.revoke(key.id, now=NOW + 1, request_id="r2")
    await keys.revoke(key.id, now=NOW + 2, request_id="r3")
    lines = await Ledger(database, b"secret").tail(limit=10)
    assert [(line.at, line.action, line.outcome, line.key_id, line.tenant, line.request_id) for line in lines] == [
        (NOW + 1, "key.revoke", "ok", key.id, "a", "r2"),
        (NOW, "key.create", "ok", key.id, "a", "r1"),
    ]
    assert lines[0].facts == {"name": "laptop", "scopes": ["generate", "read"], "policy": "default"}
    assert await Ledger(database, b"secret").usage(since=0, until=NOW * 2) == []


async def test_keys_are_listed_by_tenant(database):
    keys = Keys(database)
    made = [(await keys.create(tenant=tenant, name="n", now=NOW + i))[0] for i, tenant in enumerate("aba")]
    assert await keys.list("a") == [made[0], made[2]]
    assert await keys.list("c") == []
    assert await keys.list() == made


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("tenant", {"tenant": ""}),
        ("tenant", {"tenant": "a\0b"}),
        ("name", {"name": " "}),
        ("name", {"name": "x" * 201}),
        ("scopes", {"scopes": ()}),
        ("scopes", {"scopes": ("generate", "root")}),
        ("policy", {"policy": "none"}),
        ("wakes_per_hour", {"limits": KeyLimits(wakes_per_hour=-1)}),
        ("expires", {"expires": NOW}),
        ("expires", {"expires": float("nan")}),
        ("expires", {"expires": float("inf")}),
    ],
)
async def test_a_wrong_key_is_refused_by_the_name_of_its_field(database, field, given):
    with pytest.raises(InvalidField, match=f"^{field}: got .*; allowed: ") as refused:
        await Keys(database).create(**{"tenant": "a", "name": "n", "now": NOW} | given)
    assert refused.value.field == field
    assert await Keys(database).list() == []


async def test_an_unknown_key_cannot_be_revoked(database):
    with pytest.raises(NotFound, match="'key_none': no such key"):
        await Keys(database).revoke("key_none")


async def test_a_guess_finds_nothing(database):
    keys = Keys(database)
    _, secret = await keys.create(tenant="a", name="n")
    changed = secret[:-2] + ("aa" if not secret.endswith("aa") else "bb")
    for guess in (
        changed,
        secret.upper(),
        f"{secret} ",
        f"{secret}\n",
        "",
        hashlib.sha256(secret.encode()).hexdigest(),
    ):
        assert await keys.find(guess) is None


class Unused:
    """A database that must not be asked."""


@given(guess=st.text() | st.from_regex(r"sk-sdz-[A-Za-z0-9_-]{0,42}", fullmatch=True))
async def test_what_cannot_be_a_secret_costs_no_query(guess):
    assert await Keys(Unused()).find(guess) is None
