"""Pictures in an object store, or in files where there is none.

A name is made of the picture's content and its tenant, keyed with the deployment's secret: the same picture is stored
once, and nobody can tell another tenant's names from having the same picture. A link works for a while, signed by the
store itself or, for files, by us.
"""

import hashlib
import hmac
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store, from_url
from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from predictor.core.jobs import Generation
from predictor.core.problems import Forbidden, NotFound, StoreUnavailable
from predictor.core.request import ImageFormat
from predictor.edge.stores.database import Database
from predictor.edge.stores.schema import images as table

NAME = re.compile(r"[0-9a-f]{48}\.(png|webp|jpeg)")
ANSWERING = timedelta(seconds=10)  # of one request to the store
TRIES = timedelta(seconds=5)  # in which the client tries a request again
KINDS = ("s3://", "gs://", "az://")
log = structlog.get_logger("sdzero.edge")


class Images:
    """One for each edge process.

    Args:
        store: where they are.
        signs: whether the store signs links itself.
        secret: keys names and links.
        link_seconds: how long a link works.
        database: has a row for every image, so that old ones are found without listing the store.
    """

    def __init__(
        self, store: ObjectStore, *, signs: bool, secret: bytes, link_seconds: int, database: Database
    ) -> None:
        self._store = store
        self._signs = signs
        self._secret = secret
        self._link_seconds = link_seconds
        self._database = database

    @classmethod
    def open(cls, url: str, folder: Path, secret: bytes, link_seconds: int, database: Database) -> "Images":
        """The store at `url`, with the credentials that its cloud's tools would take; files in `folder` without one.

        Raises:
            ValueError: another kind of address.
        """
        if not url:
            folder.mkdir(parents=True, exist_ok=True)
            local = LocalStore(folder)
            return cls(local, signs=False, secret=secret, link_seconds=link_seconds, database=database)
        if not url.startswith(KINDS):
            raise ValueError(f"--images-url: got {url[:80]!r}; allowed: an address that begins with {', '.join(KINDS)}")
        store = from_url(
            url,
            client_options={"timeout": ANSWERING, "connect_timeout": timedelta(seconds=2)},
            retry_config={"max_retries": 2, "retry_timeout": TRIES},
        )
        return cls(store, signs=True, secret=secret, link_seconds=link_seconds, database=database)

    def name(self, tenant: str, content: bytes, format: ImageFormat) -> str:
        """What the picture is called."""
        message = b"image:" + tenant.encode() + b"\0" + hashlib.sha256(content).digest()
        return f"{hmac.digest(self._secret, message, 'sha256').hex()[:48]}.{format}"

    async def put(self, name: str, content: bytes) -> None:
        """Store a picture; to do it again changes nothing.

        Raises:
            StoreUnavailable: the store does not answer, or refuses.
        """
        async with _asking("put", name):
            await obstore.put_async(self._store, name, content)

    async def get(self, name: str) -> bytes:
        """The picture.

        Raises:
            NotFound: it was never there, or its time was over.
            StoreUnavailable: the store does not answer, or refuses.
        """
        if not NAME.fullmatch(name):
            raise NotFound("image: no such name")
        async with _asking("get", name):
            return bytes(await (await obstore.get_async(self._store, name)).bytes_async())

    async def link(self, name: str, base_url: str, now: float) -> str:
        """An address that anybody can get the picture from, until it expires."""
        if self._signs:
            assert isinstance(self._store, S3Store | GCSStore | AzureStore)
            async with _asking("sign", name):
                return await obstore.sign_async(self._store, "GET", name, timedelta(seconds=self._link_seconds))
        expires = str(int(now) + self._link_seconds)
        return f"{base_url}/v1/files/{name}?expires={expires}&signature={self._signature(name, expires)}"

    def check(self, name: str, expires: str, signature: str, now: float) -> None:
        """Raise unless `link` has signed this address, not too long ago.

        Raises:
            NotFound: no picture is called that.
            Forbidden: the signature is not ours, or the link has expired.
        """
        if not NAME.fullmatch(name):
            raise NotFound("image: no such name")
        genuine = hmac.compare_digest(self._signature(name, expires).encode(), signature.encode())
        if not genuine or not expires.isdecimal() or int(expires) <= now:
            raise Forbidden("the link has expired, or was changed; ask for the job again, it has a new one")

    async def delete(self, names: Iterable[str]) -> None:
        """Delete pictures; those that are not there are fine."""
        for name in names:
            async with _asking("delete", name):
                try:
                    await obstore.delete_async(self._store, name)
                except (FileNotFoundError, obstore.exceptions.NotFoundError):
                    continue

    async def record(self, name: str, generation: Generation, format: ImageFormat, size: int, now: float) -> None:
        """Note that a picture of `size` bytes is stored, so that it is found when its time is over."""
        values = {
            "name": name,
            "tenant": generation.tenant,
            "generation_id": generation.id,
            "format": format,
            "bytes": size,
            "created": now,
        }
        async with self._database.write() as connection:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            statement = dialect.insert(table).values(values)
            # The same picture again lives as long as its latest making.
            again = statement.on_conflict_do_update(index_elements=[table.c.name], set_={"created": now})
            await connection.execute(again)

    async def sweep(self, older_than: float, limit: int) -> int:
        """Delete at most `limit` pictures that were made before `older_than`; returns how many.

        The file goes first and its row last, so that nothing is left without a row; several edges may do it at once.
        """
        old = select(table.c.name).where(table.c.created < older_than).order_by(table.c.created).limit(limit)
        async with self._database.read() as connection:
            names = list((await connection.execute(old)).scalars())
        for name in names:
            await self.delete([name])
            async with self._database.write() as connection:
                await connection.execute(delete(table).where(table.c.name == name, table.c.created < older_than))
        return len(names)

    def _signature(self, name: str, expires: str) -> str:
        return hmac.digest(self._secret, f"link:{name}:{expires}".encode(), "sha256").hex()


@asynccontextmanager
async def _asking(what: str, name: str) -> AsyncGenerator[None, None]:
    try:
        yield
    except (FileNotFoundError, obstore.exceptions.NotFoundError) as error:
        raise NotFound("image: it is not there; its time may be over") from error
    except (BaseError, OSError) as error:
        log.warning("image store failed", what=what, image=name, cause=type(error).__name__, said=str(error)[:500])
        raise StoreUnavailable("the image store does not answer", retry_after=2.0) from error
