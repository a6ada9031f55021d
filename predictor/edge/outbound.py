"""Connections to addresses that a stranger chose: never into one's own network (server-side request forgery).

    host ─► resolved once ─► every address public? ─► connected to a checked address, not to the name
                             └ no: NotPublic

A name that answers otherwise the second time (DNS rebinding) gains nothing, because there is no second time.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

Resolve = Callable[[str, int], Awaitable[list[str]]]

UNICAST = ipaddress.IPv6Network("2000::/3")  # all that IANA has given out for the public IPv6 Internet
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 §2.1: a gateway takes the last 32 bits for an IPv4 address
# Addresses of a cloud's own that `ipaddress` takes for public ones: Azure's host agent; IETF's protocol assignments,
# which Python before 3.11.10 knows in part, and Oracle's metadata service is one of them.
CLOSED = tuple(ipaddress.IPv4Network(network) for network in ("168.63.129.16/32", "192.0.0.0/24"))
RESOLVING = 8  # names at once, in threads of their own: slow name servers keep nobody else waiting
# A connection is for one host: kept, it would be found by its address and serve another one, uncertified.
UNKEPT = httpx.Limits(max_keepalive_connections=0)


class NotPublic(Exception):
    """The host has an address that is not on the public Internet."""


def is_public(address: str) -> bool:
    """Whether the address is a host's on the public Internet; one that embeds an IPv4 address is judged by that."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip not in UNICAST or ip.sixtofour is not None:  # RFC 7526 has buried 6to4
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not any(ip in network for network in CLOSED)


class Resolver:
    """Names to addresses, as the system does it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVING, thread_name_prefix="resolver")

    async def __call__(self, host: str, port: int) -> list[str]:
        """The host's addresses, best first. `127.1`, `0x7f000001` and the like are addresses as well.

        Raises:
            OSError: it has none.
        """
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


class PublicTransport(httpx.AsyncBaseTransport):
    """Sends to public addresses only; TLS asks for, and checks, the certificate of the host's name.

    Args:
        resolve: names to addresses.
        allowed: which addresses may be connected to.
        inner: makes the connections, to addresses.
    """

    def __init__(
        self,
        resolve: Resolve | None = None,
        allowed: Callable[[str], bool] = is_public,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._resolve = resolve or Resolver()
        self._allowed = allowed
        self._inner = inner or httpx.AsyncHTTPTransport(limits=UNKEPT)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Try the host's addresses one after another.

        Raises:
            NotPublic: one of them is not allowed.
            httpx.TransportError: none could be connected to, or the connection failed.
        """
        host = request.url.raw_host.decode("ascii")
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{host} cannot be resolved: {error}", request=request) from error
        for address in addresses:
            if not self._allowed(address):
                raise NotPublic(f"{host} has the address {address}; allowed: addresses on the public Internet")
        failure: httpx.TransportError = httpx.ConnectError(f"{host} has no address", request=request)
        for address in addresses:
            try:
                return await self._inner.handle_async_request(_at(request, host, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure

    async def aclose(self) -> None:
        """Close what is open."""
        await self._inner.aclose()


def _at(request: httpx.Request, host: str, address: str) -> httpx.Request:
    # The header `Host` stays what it was.
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions=request.extensions | {"sni_hostname": host},
    )
