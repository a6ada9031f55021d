"""API keys: the secret is shown once, its hash is kept."""

import hashlib
import math
import re
import secrets
import time
import uuid
from collections.abc import Iterable
from typing import Literal, get_args

import msgspec
from sqlalchemy import RowMapping, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from predictor.core.account import SCOPES, KeyLimits, Scope
from predictor.core.problems import InvalidField, NotFound
from predictor.edge.settings import KEY
from predictor.edge.stores import ledger
from predictor.edge.stores.database import Database, upsert
from predictor.edge.stores.schema import keys

Policy = Literal["default", "low", "off"]
SECRET = re.compile(KEY)
NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table `keys`, without its hash. Times are seconds since the epoch."""

    id: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    limits: KeyLimits
    policy: str
    created: float
    expires: float | None = None
    revoked: float | None = None

    def valid(self, now: float) -> bool:
        """Whether it opens anything at `now`."""
        return self.revoked is None and (self.expires is None or now < self.expires)


class Keys:
    """The keys of a database. Each change has its line in the ledger, in the same transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        *,
        tenant: str,
        name: str,
        scopes: Iterable[Scope] = ("generate", "read"),
        limits: KeyLimits = KeyLimits(),  # noqa: B008  # frozen
        policy: Policy = "default",
        expires: float | None = None,
        now: float | None = None,
        request_id: str = "",
    ) -> tuple[Key, str]:
        """A new key and its secret, which cannot be had again.

        Raises:
            InvalidField: naming what is not allowed.
            StoreUnavailable: the database does not answer.
        """
        now = time.time() if now is None else now
        key = Key(
            id=f"key_{uuid.uuid4().hex}",
            tenant=tenant,
            name=name,
            scopes=frozenset(scopes),
            limits=limits,
            policy=policy,
            created=now,
            expires=expires,
        )
        _check(key)
        secret = f"sk-sdz-{secrets.token_urlsafe(32)}"
        await self._store(key, secret, request_id)
        return key, secret

    async def adopt(self, secret: str, now: float | None = None) -> Key | None:
        """The deployment's first key, with every scope; None if its secret was ever stored, and be it revoked since.

        Args:
            secret: drawn by whoever deploys, of the form `KEY`; several edges may bring the same one at once.
            now: when.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        first = Key(
            id=f"key_{uuid.uuid4().hex}",
            tenant="default",
            name="first",
            scopes=frozenset(SCOPES),
            limits=KeyLimits(),
            policy="default",
            created=time.time() if now is None else now,
        )
        return first if await self._store(first, secret) else None

    async def _store(self, key: Key, secret: str, request_id: str = "") -> bool:
        """Whether the secret is new; then the key is stored and booked."""
        row = msgspec.structs.asdict(key) | {
            "hash": _hash(secret),
            "scopes": msgspec.json.encode(sorted(key.scopes)).decode(),
            "limits": msgspec.json.encode(key.limits).decode(),
        }
        async with self._database.write() as connection:
            new = upsert(connection, keys).on_conflict_do_nothing(index_elements=[keys.c.hash])
            stored = (await connection.execute(new, row)).rowcount == 1
            if stored:
                await _book(connection, "key.create", key, key.created, request_id)
        return stored

    async def list(self, tenant: str | None = None) -> list[Key]:
        """The keys of a tenant, or all of them, oldest first; also those that no longer open anything."""
        statement = select(keys).order_by(keys.c.created, keys.c.id)
        if tenant is not None:
            statement = statement.where(keys.c.tenant == tenant)
        async with self._database.read() as connection:
            return [_key(row) for row in (await connection.execute(statement)).mappings()]

    async def revoke(self, id: str, *, now: float | None = None, request_id: str = "") -> Key:
        """The key, which opens nothing from now on; one that was revoked before stays as it was.

        Raises:
            NotFound: there is no such key.
            StoreUnavailable: the database does not answer.
        """
        now = time.time() if now is None else now
        async with self._database.write() as connection:
            changed = await connection.execute(
                update(keys).where(keys.c.id == id, keys.c.revoked.is_(None)).values(revoked=now)
            )
            row = (await connection.execute(select(keys).where(keys.c.id == id))).mappings().one_or_none()
            if row is None:
                raise NotFound(f"{id!r}: no such key; `sdzero keys list` shows those that are")
            key = _key(row)
            if changed.rowcount:
                await _book(connection, "key.revoke", key, now, request_id)
        return key

    async def find(self, secret: str, now: float | None = None) -> Key | None:
        """The key of a secret, if it is valid at `now`; what cannot be a secret costs no query.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        if not SECRET.fullmatch(secret):
            return None
        async with self._database.read() as connection:
            found = await connection.execute(select(keys).where(keys.c.hash == _hash(secret)))
            row = found.mappings().one_or_none()
        key = None if row is None else _key(row)
        return key if key is not None and key.valid(time.time() if now is None else now) else None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: RowMapping) -> Key:
    values = {str(name): value for name, value in row.items() if name != "hash"}
    for name, kind in (("scopes", frozenset[Scope]), ("limits", KeyLimits)):
        values[name] = msgspec.json.decode(values[name], type=kind)
    return Key(**values)


def _check(key: Key) -> None:
    for field, value in (("tenant", key.tenant), ("name", key.name)):
        if not NAME.fullmatch(value) or not value.strip():
            raise InvalidField.of(field, value, "1 to 200 characters, no control characters among them")
    if not key.scopes or key.scopes - set(SCOPES):
        raise InvalidField.of("scopes", sorted(key.scopes), f"one or more of {', '.join(SCOPES)}")
    if key.policy not in get_args(Policy):
        raise InvalidField.of("policy", key.policy, ", ".join(get_args(Policy)))
    for field, limit in msgspec.structs.asdict(key.limits).items():
        if limit is not None and limit < 0:
            raise InvalidField.of(field, limit, "whole numbers from 0, which is no limit")
    if key.expires is not None and not key.created < key.expires < math.inf:
        raise InvalidField.of("expires", key.expires, "a time to come")


async def _book(connection: AsyncConnection, action: str, key: Key, now: float, request_id: str) -> None:
    line = ledger.Line(
        at=now,
        tenant=key.tenant,
        key_id=key.id,
        request_id=request_id,
        action=action,
        outcome="ok",
        facts={"name": key.name, "scopes": sorted(key.scopes), "policy": key.policy},
    )
    await ledger.insert(connection, [line])
