"""Pictures in an object store, or in files where there is none.

A name is made of the picture's content and its tenant, keyed with the deployment's secret: the same picture is stored
once, and nobody can tell another tenant's names from having the same picture. A link works for a while, signed by the
store itself or, for files, by us.

    keep    row ─► picture          Whatever is stored has a row, by which it is found when its time is over.
    sweep   picture ─► row          The row is locked meanwhile: a picture that is made again is stored after that.
"""

import asyncio
import hashlib
import hmac
import os
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store, from_url
from sqlalchemy import delete, select

from predictor.core.jobs import Generation
from predictor.core.problems import Forbidden, NotFound, StoreUnavailable
from predictor.core.request import ImageFormat
from predictor.edge.stores.database import Database, upsert
from predictor.edge.stores.schema import images as table

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

NAME = re.compile(r"[0-9a-f]{48}\.(png|webp|jpeg)")
ADDRESS = re.compile(r"(s3|gs|az)://[^\s/?#@:]+(/[^\s?#]*)?")
# Of the store's client: one request, and in how long another one may begin.
# Whoever writes http:// into an endpoint means it.
CLIENT: "ClientConfig" = {
    "timeout": timedelta(seconds=6),
    "connect_timeout": timedelta(seconds=2),
    "allow_http": True,
}
TRIES: "RetryConfig" = {"max_retries": 2, "retry_timeout": timedelta(seconds=2)}
PATIENCE = 8.0  # seconds for an answer, whatever it takes: credentials as well come from a server
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")  # the error codes of S3 and Google, and of Azure
Cloud = S3Store | GCSStore | AzureStore
log = structlog.get_logger("sdzero.edge")


class Images:
    """One for each edge process.

    Args:
        store: where they are; a cloud signs links itself.
        secret: keys names and links.
        link_seconds: how long a link works.
        database: has a row for every image, so that old ones are found without listing the store.
    """

    def __init__(self, store: Cloud | LocalStore, *, secret: bytes, link_seconds: int, database: Database) -> None:
        self._store = store
        self._secret = secret
        self._link_seconds = link_seconds
        self._database = database

    @classmethod
    def open(cls, url: str, folder: Path, secret: bytes, link_seconds: int, database: Database) -> "Images":
        """The store at `url`; without one, files in `folder`, which only their owner can read.

        A cloud's credentials and region come from its usual variables (`AWS_…`, `GOOGLE_…`, `AZURE_…`) or from the
        identity that the pod or the machine has there. `AWS_ENDPOINT_URL` names another S3-compatible server; one
        without TLS is taken at its word, `http://`.

        Raises:
            ValueError: another kind of address, or one that lacks a setting of its cloud.
            OSError: the folder cannot be made.
        """
        if not url:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return cls(LocalStore(folder), secret=secret, link_seconds=link_seconds, database=database)
        return cls(_cloud(url), secret=secret, link_seconds=link_seconds, database=database)

    def name(self, tenant: str, content: bytes, format: ImageFormat) -> str:
        """What the picture is called."""
        message = b"image:" + tenant.encode() + b"\0" + hashlib.sha256(content).digest()
        return f"{hmac.digest(self._secret, message, 'sha256').hex()[:48]}.{format}"

    async def keep(self, generation: Generation, content: bytes, format: ImageFormat, now: float) -> str:
        """Store a picture that `generation` has made; to do it again changes nothing. Returns its name.

        Raises:
            StoreUnavailable: the store or the database does not answer, or refuses.
        """
        name = self.name(generation.tenant, content, format)
        # In this order: a sweep that comes between sees a young row, and nothing is stored without one.
        await self._record(name, generation, format, len(content), now)
        await self.put(name, content)
        return name

    async def put(self, name: str, content: bytes) -> None:
        """Store a picture; to do it again changes nothing. When it returns, a power cut changes nothing either.

        Raises:
            StoreUnavailable: the store does not answer, or refuses.
        """
        async with _asking("put", name):
            if isinstance(self._store, LocalStore):
                await obstore.put_async(self._store, name, content)
                assert self._store.prefix is not None
                await asyncio.to_thread(_onto_disk, self._store.prefix, name)
            else:
                kind = {"Content-Type": media_type(name)}  # for whoever follows a link
                await obstore.put_async(self._store, name, content, attributes=kind, use_multipart=False)

    async def get(self, name: str) -> bytes:
        """The picture.

        Raises:
            NotFound: it was never there, or its time was over.
            StoreUnavailable: the store does not answer, or refuses.
        """
        async with _asking("get", name):
            return bytes(await (await obstore.get_async(self._store, name)).bytes_async())

    async def link(self, name: str, base_url: str, now: float) -> str:
        """An address that anybody can get the picture from, until it expires.

        One that a cloud signs with credentials that last less long works as long as they do.

        Raises:
            StoreUnavailable: the store's credentials cannot be had, or may not sign.
        """
        if not isinstance(self._store, LocalStore):
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
        if not genuine or int(expires) <= now:
            raise Forbidden("the link has expired, or was changed; ask for the job again, it has a new one")

    async def delete(self, names: Iterable[str]) -> None:
        """Delete pictures; those that are not there are fine."""
        for name in names:
            with suppress(NotFound):
                async with _asking("delete", name):
                    await obstore.delete_async(self._store, name)

    async def sweep(self, older_than: float, limit: int) -> int:
        """Delete at most `limit` pictures that were made before `older_than`; returns how many.

        Several edges may do it at once.

        Raises:
            StoreUnavailable: the store or the database does not answer; what is left stays for the next time.
        """
        old = select(table.c.name).where(table.c.created < older_than).order_by(table.c.created).limit(limit)
        async with self._database.read() as connection:
            names = list((await connection.execute(old)).scalars())
        return sum([await self._forget(name, older_than) for name in names])

    async def _record(self, name: str, generation: Generation, format: ImageFormat, size: int, now: float) -> None:
        """Note that a picture of `size` bytes is about to be stored, so that it is found when its time is over."""
        values = {
            "name": name,
            "tenant": generation.tenant,
            "generation_id": generation.id,
            "format": format,
            "bytes": size,
            "created": now,
        }
        async with self._database.write() as connection:
            statement = upsert(connection, table).values(values)
            # The same picture again lives as long as its latest making.
            again = statement.on_conflict_do_update(index_elements=[table.c.name], set_={"created": now})
            await connection.execute(again)

    async def _forget(self, name: str, older_than: float) -> bool:
        row = delete(table).where(table.c.name == name, table.c.created < older_than)
        async with self._database.write() as connection:
            # The row is locked here, and gone when the transaction ends, after the picture.
            ours = (await connection.execute(row)).rowcount == 1
            if ours:
                await self.delete([name])
        return ours

    def _signature(self, name: str, expires: str) -> str:
        return hmac.digest(self._secret, f"link:{name}:{expires}".encode(), "sha256").hex()


def media_type(name: str) -> str:
    """What a picture of that name is served as."""
    return f"image/{name.rpartition('.')[2]}"


def _cloud(url: str) -> Cloud:
    kind = url.partition(":")[0] if ":" in url else "none"
    allowed = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX, with credentials from the environment"
    if not ADDRESS.fullmatch(url):
        raise ValueError(f"--images-url: got an address of the kind {kind!r} that is none of ours; allowed: {allowed}")
    try:
        store = from_url(url, client_options=CLIENT, retry_config=TRIES)
    except (BaseError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"--images-url: {kind}: {said}; allowed: {allowed}") from None
    assert isinstance(store, Cloud)
    return store


def _onto_disk(folder: Path, name: str) -> None:
    for path in (folder / name, folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@asynccontextmanager
async def _asking(what: Literal["put", "get", "delete", "sign"], name: str) -> AsyncGenerator[None, None]:
    if not NAME.fullmatch(name):
        raise NotFound("image: no such name")
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except (BaseError, OSError) as error:  # OSError holds TimeoutError
        said = str(error)
        if isinstance(error, FileNotFoundError) and what != "put" and not any(code in said for code in NO_BUCKET):
            raise NotFound("image: it is not there; its time may be over") from error
        log.warning("image store failed", what=what, image=name, cause=type(error).__name__, said=said[:500])
        raise StoreUnavailable("the image store does not answer", retry_after=2.0) from error
