"""Pictures in files and in a real S3-compatible store."""

import asyncio
import itertools
import json
import os
import re
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from predictor.core.problems import Forbidden, NotFound, StoreUnavailable
from predictor.edge.stores.database import Database
from predictor.edge.stores.images import Images
from tests.edge.http_servers import Answer, web
from tests.edge.stores.given import a_generation
from tests.edge.stores.processes import another_process, told
from tests.processes import wait_until

SECRET = b"the deployment's own, of 32 bytes"
NOW = 1_700_000_000.0
A_NAME = "0" * 48 + ".png"
TRICKS = ["../secret", "..", "", "/etc/passwd", A_NAME + "\n", "../" + A_NAME, A_NAME.upper() + "x", "0" * 48 + ".svg"]
_numbers = itertools.count()
Opened = Callable[..., Images]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    """Opens a store at an address, or in files."""
    database = await Database.open(f"sqlite:///{tmp_path / 'sdzero.db'}")

    def begin(url: str = "", secret: bytes = SECRET, link_seconds: int = 60) -> Images:
        return Images.open(url, tmp_path / "images", secret, link_seconds, database)

    yield begin
    await database.close()


@pytest.fixture
def bucket(s3, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty place in the S3-compatible store, whose credentials are in the environment."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.url(f"pictures{next(_numbers)}")


@pytest.fixture(params=["files", "s3"])
def images(request: pytest.FixtureRequest, opened: Opened) -> Images:
    return opened(request.getfixturevalue("bucket") if request.param == "s3" else "")


async def test_a_picture_is_there_until_it_is_deleted(images):
    name = images.name("acme", b"pixels", "png")
    with pytest.raises(NotFound):
        await images.get(name)
    for _ in range(2):
        await images.put(name, b"pixels")
        assert await images.get(name) == b"pixels"
    for _ in range(2):
        await images.delete([name])
        with pytest.raises(NotFound):
            await images.get(name)


async def test_a_picture_is_kept_with_its_tenant_s_name(images):
    name = await images.keep(a_generation(tenant="acme"), b"pixels", "webp", NOW)
    assert name == images.name("acme", b"pixels", "webp")
    assert await images.get(name) == b"pixels"
    assert await images.keep(a_generation(tenant="acme"), b"pixels", "webp", NOW + 1) == name


async def test_large_pictures_come_back_whole(images):
    content = os.urandom(9 * 2**20)  # beyond where the client would send parts
    name = images.name("acme", content, "png")
    await images.put(name, content)
    assert await images.get(name) == content


async def test_no_reader_sees_half_a_picture(images):
    content = os.urandom(3 * 2**20)
    name = images.name("acme", content, "png")
    whole = 0

    async def read() -> None:
        nonlocal whole
        with suppress(NotFound):
            assert await images.get(name) == content
            whole += 1

    for _ in range(3):
        await asyncio.gather(*(step for _ in range(5) for step in (images.put(name, content), read())))
        await read()
        await images.delete([name])
    assert whole >= 3


async def test_a_process_killed_while_it_writes_leaves_no_half_picture(opened, tmp_path):
    program = (
        "from pathlib import Path\n"
        "from predictor.edge.stores.images import Images\n"
        "images = Images.open('', Path(url), b's' * 32, 60, None)\n"
        "async def go():\n"
        "    for number in range(10**6):\n"
        "        tell(number)\n"
        "        await images.put(f'{number:048x}.png', bytes([number % 256]) * 4_000_000)\n"
        "asyncio.run(go())"
    )
    images = opened()
    with another_process(program, str(tmp_path / "images")) as process:
        while (number := int(told(process))) < 5:
            pass
        process.kill()
        process.wait()
    for written in range(number):
        assert await images.get(f"{written:048x}.png") == bytes([written]) * 4_000_000
    with suppress(NotFound):
        assert await images.get(f"{number:048x}.png") == bytes([number]) * 4_000_000


async def test_an_acknowledged_file_and_its_entry_are_on_the_disk(opened, tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    images = opened()
    monkeypatch.setattr(os, "fsync", noted)
    await images.put(A_NAME, b"pixels")
    assert synced == [tmp_path / "images" / A_NAME, tmp_path / "images"]


# Names


@given(st.text(min_size=1, max_size=20), st.binary(max_size=50), st.sampled_from(["png", "webp", "jpeg"]))
def test_a_name_is_made_of_content_and_tenant(tenant, content, format):
    images = Images(None, secret=SECRET, link_seconds=60, database=None)
    name = images.name(tenant, content, format)
    assert re.fullmatch(rf"[0-9a-f]{{48}}\.{format}", name)
    assert name == images.name(tenant, content, format)
    elsewhere = Images(None, secret=SECRET + b"!", link_seconds=60, database=None)
    others = {
        images.name(tenant + "x", content, format),
        images.name(tenant, content + b"x", format),
        elsewhere.name(tenant, content, format),
    }
    assert len(others | {name}) == 4


@pytest.mark.parametrize("name", TRICKS)
async def test_a_name_that_is_none_of_ours_never_reaches_the_store(opened, monkeypatch, name, tmp_path):
    with web(lambda _: Answer(200)) as store:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "some")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        for images in (opened("s3://pictures"), opened()):
            with pytest.raises(NotFound):
                await images.get(name)
            with pytest.raises(NotFound):
                await images.put(name, b"x")
            with pytest.raises(NotFound):
                images.check(name, "1", "", NOW)
            await images.delete([name])
        assert store.came == []
    assert {path.name for path in tmp_path.rglob("*") if not path.name.startswith("sdzero.db")} == {"images"}


# Links


async def followed(link: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(link)


async def test_anybody_with_a_link_of_the_store_gets_the_picture(opened, bucket):
    images = opened(bucket)
    for format in ("png", "webp", "jpeg"):
        name = await images.keep(a_generation(), b"pixels", format, NOW)
        reply = await followed(await images.link(name, "http://edge", NOW))
        assert (reply.status_code, reply.content) == (200, b"pixels")
        assert reply.headers["content-type"] == f"image/{format}"


async def test_a_store_refuses_changed_and_expired_links(opened, bucket, s3):
    if not s3.verifies:
        pytest.skip("moto does not check signatures")
    images = opened(bucket, link_seconds=1)
    one, other = [await images.keep(a_generation(), content, "png", NOW) for content in (b"one", b"other")]
    link = await images.link(one, "http://edge", NOW)
    for changed in (link.replace(one, other), link.replace("X-Amz-Expires=1", "X-Amz-Expires=100"), link[:-4] + "0000"):
        assert changed != link
        assert (await followed(changed)).status_code == 403
    assert (await followed(link.partition("?")[0])).status_code == 403
    wait_until(lambda: httpx.get(link).status_code == 403)


async def test_a_link_to_a_file_can_be_checked_until_it_expires(opened):
    images = opened(link_seconds=60)
    link = httpx.URL(await images.link(A_NAME, "http://edge/below", NOW))
    assert str(link).startswith(f"http://edge/below/v1/files/{A_NAME}?")
    expires, signature = link.params["expires"], link.params["signature"]
    images.check(A_NAME, expires, signature, NOW)
    images.check(A_NAME, expires, signature, NOW + 59.9)
    with pytest.raises(Forbidden):
        images.check(A_NAME, expires, signature, NOW + 60)
    with pytest.raises(Forbidden):
        opened(secret=b"another" * 5).check(A_NAME, expires, signature, NOW)
    with pytest.raises(Forbidden):
        images.check("1" + A_NAME[1:], expires, signature, NOW)


@pytest.mark.parametrize("tried", ["", "9" * 5000, "-1", "1e9", "٣", "\0", "1700000060 "])
async def test_no_other_expiry_is_genuine(opened, tried):
    images = opened()
    signature = httpx.URL(await images.link(A_NAME, "http://edge", NOW)).params["signature"]
    with pytest.raises(Forbidden):
        images.check(A_NAME, tried, signature, NOW)


async def test_azure_and_google_sign_links_with_credentials_from_the_environment(opened, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5a2V5")
    link = httpx.URL(await opened("az://container/below").link(A_NAME, "", NOW))
    assert (link.host, link.path) == ("account.blob.core.windows.net", f"/container/below/{A_NAME}")
    assert link.params["sp"] == "r"
    assert link.params["sig"]

    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"private_key": key.decode(), "private_key_id": "1", "client_email": "edge@project.example"}
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(account))
    link = httpx.URL(await opened("gs://bucket/below").link(A_NAME, "", NOW))
    assert (link.host, link.path) == ("storage.googleapis.com", f"/bucket/below/{A_NAME}")
    assert link.params["X-Goog-Expires"] == "60"
    assert link.params["X-Goog-Signature"]


# Stores that do not answer, or refuse


async def everything(images: Images) -> list[BaseException | None]:
    """What getting, putting and deleting a picture come to, side by side."""
    async with asyncio.timeout(30):
        return await asyncio.gather(
            images.get(A_NAME), images.put(A_NAME, b"x"), images.delete([A_NAME]), return_exceptions=True
        )


def said_so(outcomes: list[BaseException | None]) -> bool:
    return [(type(one), str(one)) for one in outcomes] == [
        (StoreUnavailable, "the image store does not answer")
    ] * 3 and all(one.retry_after for one in outcomes)


async def test_a_store_that_comes_back_has_what_it_had(opened, bucket, s3):
    images = opened(bucket)
    name = await images.keep(a_generation(), b"pixels", "png", NOW)
    for leave, come in ((s3.stop, s3.start), (s3.kill, s3.start), (s3.hang, s3.wake)):
        leave()
        try:
            with capture_logs() as logs:
                assert said_so(await everything(images))
        finally:
            come()
        assert {line["event"] for line in logs} == {"image store failed"}
        assert await images.get(name) == b"pixels"


async def test_a_bucket_that_is_not_there_is_no_picture_that_is_not_there(opened, bucket):
    assert said_so(await everything(opened("s3://nobody-made-this/prefix")))


async def test_credentials_that_the_store_refuses(opened, bucket, s3, monkeypatch):
    if not s3.verifies:
        pytest.skip("moto does not check signatures")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert said_so(await everything(opened(bucket)))


ANSWERS = {
    **{str(status): Answer(status) for status in (301, 304, 400, 401, 403, 409, 412, 416, 429, 500, 503)},
    "no container": Answer(404, b"<Error><Code>ContainerNotFound</Code></Error>"),
    "cut off": Answer(200, b"pix", {"content-length": "6", "last-modified": "Tue, 14 Nov 2023 22:13:20 GMT"}),
    "no metadata": Answer(200, b"pixels", {"last-modified": "yesterday"}),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_whatever_else_a_store_says_it_is_unavailable(opened, monkeypatch, answer):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "some")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    with web(lambda _: answer) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        with pytest.raises(StoreUnavailable):
            await opened("s3://pictures/prefix").get(A_NAME)
        assert store.came


async def test_a_folder_that_cannot_be_written(opened, tmp_path):
    images = opened()
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "images").write_text("a file")
    with capture_logs() as logs, pytest.raises(StoreUnavailable, match=r"^the image store does not answer$"):
        await images.put(A_NAME, b"x")
    assert logs[0]["said"]


# Opening


async def test_only_its_owner_can_read_the_folder(opened, tmp_path):
    opened()
    assert stat.S_IMODE((tmp_path / "images").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "url",
    [
        "file:///tmp",
        "http://store/bucket",
        "pictures",
        "s3:",
        "s3://",
        "gs://",
        "s3://key:hidden@bucket/prefix",
        "s3://bucket/prefix?secret=hidden",
        "s3://bucket:9000/prefix",
        "s3:// bucket",
        "az://container-without-an-account",
    ],
)
async def test_an_address_that_is_none_is_refused_by_the_setting_s_name(opened, url):
    with pytest.raises(ValueError, match=r"^--images-url: .*allowed: s3://BUCKET/PREFIX") as refused:
        opened(url)
    assert "hidden" not in str(refused.value)
