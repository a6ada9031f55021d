"""The web page. Its files are read once, at the start; it talks to the public API like any other client.

GET  /            the page
GET  /page/FILE   its style, its modules, its icon
"""

import hashlib
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from predictor.core.problems import NotFound
from predictor.edge import page

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
FIRST = "index.html"


class File:
    """One file of the page, as it is sent."""

    def __init__(self, name: str, content: bytes, headers: dict[str, str]) -> None:
        self._content = content
        self._etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        self._headers = headers | {"content-type": TYPES[name.rpartition(".")[2]], "etag": self._etag}

    def reply(self, request: Request) -> Response:
        """The file; 304 for who has it."""
        had = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self._etag in had or "*" in had:
            return Response(status_code=304, headers=self._headers)
        return Response(self._content, headers=self._headers)


def routes(*, images_elsewhere: bool = False) -> list[Route]:
    """The page's routes.

    Args:
        images_elsewhere: whether links to images lead to another server, an object store's for example.
    """
    headers = security(images_elsewhere=images_elsewhere)
    folder = resources.files(page)
    files = {
        item.name: File(item.name, item.read_bytes(), headers)
        for item in folder.iterdir()
        if item.name.rpartition(".")[2] in TYPES
    }
    first = files.pop(FIRST)

    async def index(request: Request) -> Response:
        return first.reply(request)

    async def file(request: Request) -> Response:
        name = str(request.path_params["file"])
        if name not in files:
            raise NotFound(f"page: got {name[:80]!r}; allowed: {', '.join(sorted(files))}")
        return files[name].reply(request)

    return [Route("/", index), Route("/page/{file}", file)]


def security(*, images_elsewhere: bool) -> dict[str, str]:
    """Headers of every file: only the page's own code runs, and nothing but its own API is spoken to.

    `no-cache` has each file asked for again, and answered by 304: modules of two versions would not fit together.
    """
    policy = (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        f"img-src 'self' data:{' https:' if images_elsewhere else ''}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return {
        "cache-control": "no-cache",
        "content-security-policy": "; ".join(policy),
        "cross-origin-opener-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
