"""Pictures that are kept in files, for whoever has a link: `GET /v1/files/NAME?expires&signature`."""

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from predictor.core.problems import Forbidden
from predictor.edge.stores.images import Images, media_type

HEADERS = {
    "content-disposition": "inline",
    "content-security-policy": "default-src 'none'",
    "cross-origin-resource-policy": "cross-origin",  # a page of another origin may show it, as with a store's links
    "x-content-type-options": "nosniff",
}


def routes(images: Images) -> list[Route]:
    """The one route."""

    async def file(request: Request) -> Response:
        name, query = str(request.path_params["name"]), request.query_params
        if sorted(parameter for parameter, _ in query.multi_items()) != ["expires", "signature"]:
            raise Forbidden("the link was changed; ask for the job again, it has a new one")
        now = time.time()
        images.check(name, query["expires"], query["signature"], now)
        headers = HEADERS | {
            "cache-control": f"private, max-age={int(query['expires']) - int(now)}, immutable",
            "etag": f'"{name}"',  # made of the content
        }
        if headers["etag"] in _tags(request):
            return Response(status_code=304, headers=headers)
        return Response(await images.get(name), media_type=media_type(name), headers=headers)

    return [Route("/v1/files/{name}", file)]


def _tags(request: Request) -> list[str]:
    """The entity tags that the client has, for weak comparison (RFC 9110, section 13.1.2)."""
    listed = ",".join(request.headers.getlist("if-none-match"))
    return [tag.strip().removeprefix("W/") for tag in listed.split(",")]
