"""Links to pictures that are kept in files, over HTTP."""

import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from predictor.asgi.access import Access
from predictor.core.problems import Problem
from predictor.edge.app import reply_at
from predictor.edge.routes import files
from predictor.edge.stores.database import Database
from predictor.edge.stores.images import Images
from tests.edge.stores.given import a_generation

SECRET = b"the deployment's own, of 32 bytes"
PICTURE = b"\x89PNG and pixels"


@pytest.fixture
async def images(tmp_path: Path) -> AsyncIterator[Images]:
    database = await Database.open(f"sqlite:///{tmp_path / 'sdzero.db'}")
    yield Images.open("", tmp_path / "images", SECRET, 60, database)
    await database.close()


@pytest.fixture
async def client(images: Images) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(
        routes=files.routes(images),
        middleware=[Middleware(Access, reply=reply_at)],
        exception_handlers={Problem: lambda request, problem: reply_at(problem, request.url.path)},
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge") as client:
        yield client


async def linked(images: Images, format: str = "png", now: float | None = None) -> str:
    name = await images.keep(a_generation(), PICTURE, format, 100.0)
    return await images.link(name, "http://edge", time.time() if now is None else now)


def refused(reply: httpx.Response, status: int, code: str) -> None:
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, code), error
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
async def test_whoever_has_a_link_gets_the_picture(client, images, format):
    reply = await client.get(await linked(images, format))
    assert (reply.status_code, reply.content) == (200, PICTURE)
    headers = reply.headers
    assert headers["content-type"] == f"image/{format}"
    assert headers["content-length"] == str(len(PICTURE))
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'"
    assert headers["content-disposition"] == "inline"
    who, age, change = headers["cache-control"].split(", ")
    assert (who, change) == ("private", "immutable")
    assert 0 <= int(age.removeprefix("max-age=")) <= 60


async def test_a_browser_that_has_the_picture_is_not_sent_it_again(client, images):
    link = await linked(images)
    tag = (await client.get(link)).headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        reply = await client.get(link, headers={"if-none-match": known})
        assert (reply.status_code, reply.content, reply.headers["etag"]) == (304, b"", tag)
    twice = await client.get(link, headers=[("if-none-match", '"other"'), ("if-none-match", tag)])
    assert twice.status_code == 304
    for other in ('"other"', tag.strip('"'), ""):
        assert (await client.get(link, headers={"if-none-match": other})).status_code == 200


async def test_a_tag_opens_nothing_without_a_link(client, images):
    link = await linked(images)
    tag = (await client.get(link)).headers["etag"]
    refused(await client.get(link[:-1] + "x", headers={"if-none-match": tag}), 403, "forbidden")


async def test_head_tells_what_get_would(client, images):
    link = await linked(images)
    told, got = await client.head(link), await client.get(link)
    assert told.status_code == 200
    varying = {"x-request-id", "cache-control"}
    assert {key: told.headers[key] for key in told.headers if key not in varying} == {
        key: got.headers[key] for key in got.headers if key not in varying
    }
    assert (await client.head(link[:-1] + "x")).status_code == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nobody_changes_a_picture(client, images, method):
    assert (await client.request(method, await linked(images))).status_code == 405


async def test_a_changed_link_opens_nothing(client, images):
    link = httpx.URL(await linked(images))
    expires, signature = link.params["expires"], link.params["signature"]
    both = {"expires": expires, "signature": signature}
    changed = [
        {"expires": str(int(expires) + 1), "signature": signature},
        {"expires": expires, "signature": signature[:-1] + ("0" if signature[-1] != "0" else "1")},
        {"expires": expires, "signature": signature.upper()},
        {"expires": expires, "signature": ""},
        {"expires": expires, "signature": "é\0"},
        {"expires": "", "signature": signature},
        {"expires": "٣" * 10, "signature": signature},
        {"expires": "9" * 5000, "signature": signature},
        {"expires": expires},
        {"signature": signature},
        {},
        both | {"download": "1"},
        both | {"": ""},
        [*both.items(), ("expires", expires)],
        [*both.items(), ("signature", signature)],
    ]
    for query in changed:
        refused(await client.get(link.path, params=query), 403, "forbidden")
    other = await images.keep(a_generation(), b"other", "png", 100.0)
    for path in (f"/v1/files/{other}", link.path.replace(".png", ".webp")):
        refused(await client.get(path, params=both), 403, "forbidden")
    assert (await client.get(link.path, params=both)).status_code == 200
    assert (await client.get(link.path, params=dict(reversed(both.items())))).status_code == 200


async def test_an_expired_link_opens_nothing(client, images):
    refused(await client.get(await linked(images, now=time.time() - 61)), 403, "forbidden")


@pytest.mark.parametrize(
    "name",
    [
        "..%2fsecret",
        "%2e%2e",
        "..%5csecret",
        "%00.png",
        "x.png",
        "0" * 48,
        "0" * 48 + ".svg",
        "0" * 48 + ".png%0d%0aset-cookie:%20a=b",
        "0" * 48 + ".png/",
        "0" * 47 + "%C0%AF.png",
    ],
)
async def test_tricks_with_the_name_find_nothing_and_write_no_header(client, images, name):
    query = httpx.URL(await linked(images)).query.decode()
    reply = await client.get(f"/v1/files/{name}?{query}", follow_redirects=False)
    assert reply.status_code == (307 if name.endswith("/") else 404)
    assert "set-cookie" not in reply.headers


async def test_a_picture_whose_time_was_over_is_not_found(client, images):
    link = await linked(images)
    assert await images.sweep(200.0, 100) == 1
    refused(await client.get(link), 404, "not_found")


async def test_a_disk_that_fails_is_a_reason_to_come_back(client, images, tmp_path):
    link = await linked(images)
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "images").write_text("no folder")
    reply = await client.get(link)
    refused(reply, 503, "store_unavailable")
    assert reply.headers["retry-after"] == "2"
    assert str(tmp_path) not in reply.text
