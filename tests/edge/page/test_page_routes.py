"""The page's files over HTTP."""

import re
from typing import get_args

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from predictor.core.problems import Problem
from predictor.edge.routes import page
from predictor.engine.baked.manifest import Kind


def client(**options: bool) -> TestClient:
    handlers = {Problem: lambda _, problem: PlainTextResponse(problem.message, problem.http)}
    return TestClient(Starlette(routes=list(page.routes(**options)), exception_handlers=handlers))  # type: ignore[arg-type]


FILES = re.findall(r'(?:src|href)="(page/[^"]+)"', client().get("/").text)


@pytest.mark.parametrize("path", ["/", *(f"/{name}" for name in sorted(set(FILES)))])
def test_every_file_comes_with_its_type_and_strict_headers(path):
    reply = client().get(path)
    assert reply.status_code == 200
    headers = reply.headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' data:"
    assert policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    kind = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}.get(
        path.rpartition(".")[2], "text/html"
    )
    assert headers["content-type"].split(";")[0] == kind


def test_images_of_an_object_store_are_allowed_only_when_told():
    assert "img-src 'self' data: https:;" in client(images_elsewhere=True).get("/").headers["content-security-policy"]


def test_who_has_a_file_is_not_sent_it_again():
    first = client().get("/page/page.js")
    again = client().get("/page/page.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = client().get("/page/page.js", headers={"if-none-match": '"other"'})
    assert other.status_code == 200


@pytest.mark.parametrize("name", ["__init__.py", "index.html", "nothing.js", "..%2fapp.py", "%2e%2e%2f__init__.py"])
def test_nothing_else_is_served(name):
    assert client().get(f"/page/{name}").status_code == 404


def test_nothing_is_inline():
    text = client().get("/").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


def test_the_page_has_words_for_the_rehearsal_of_each_package():
    script = client().get("/page/cold_start.js").text
    assert [kind for kind in get_args(Kind) if f"  {kind}_warm: " not in script] == []
