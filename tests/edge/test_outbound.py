"""Requests to addresses that a stranger chose, against real sockets and the system's resolver."""

import datetime
import ipaddress
import ssl

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from predictor.edge.outbound import UNKEPT, NotPublic, PublicTransport, is_public
from tests.edge.http_servers import Answer, web

PUBLIC, OTHER = "93.184.216.34", "2606:2800:220:1::1"


def answers(*found):
    """A name server that gives these lists of addresses, one after another."""
    left = list(found)

    async def resolve(host, port):
        return left.pop(0)

    return resolve


def client(transport):
    return httpx.AsyncClient(transport=transport, trust_env=False)


class Recorder(httpx.MockTransport):
    """Takes the place of the network: which addresses are connected to, and which of them answer."""

    def __init__(self, *dead):
        self.tried = []
        self.requests = []

        def answer(request):
            self.tried.append(request.url.host)
            self.requests.append(request)
            if request.url.host in dead:
                raise httpx.ConnectError("refused")
            return httpx.Response(204)

        super().__init__(answer)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "10.0.0.1",
        "172.16.5.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:808:808::",
        "2001::1",
        "2001:db8::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%2",
        "fec0::1",
        "ff02::1",
    ],
)
def test_an_address_of_ones_own_network_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, OTHER, "8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_an_address_of_the_internet_is(address):
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_judged_as_itself(address):
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | int(address))
    translated = ipaddress.IPv6Address((0x64FF9B << 96) | int(address))
    assert is_public(str(mapped)) == is_public(str(translated)) == is_public(str(address))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::]",
    ],
)
async def test_no_spelling_of_this_machine_is_connected_to(host):
    with web(lambda came: Answer()) as here:
        async with client(PublicTransport()) as sender:
            with pytest.raises((NotPublic, httpx.InvalidURL)):
                await sender.post(f"http://{host}:{here.port}/", content=b"{}")
        assert here.connections == 0


async def test_one_private_address_among_public_ones_is_enough():
    network = Recorder()
    async with client(PublicTransport(answers([PUBLIC, OTHER, "10.0.0.7"]), inner=network)) as sender:
        with pytest.raises(NotPublic, match=r"hooks\.example has the address 10\.0\.0\.7; allowed: .* public Internet"):
            await sender.post("https://hooks.example/")
    assert network.tried == []


async def test_a_name_that_answers_otherwise_the_second_time_gains_nothing():
    network = Recorder()
    async with client(PublicTransport(answers([PUBLIC], ["127.0.0.1"]), inner=network)) as sender:
        assert (await sender.post("http://rebinding.example:8080/hook?a=b")).status_code == 204
        with pytest.raises(NotPublic):
            await sender.post("http://rebinding.example:8080/hook?a=b")
    (request,) = network.requests
    assert str(request.url) == f"http://{PUBLIC}:8080/hook?a=b", "the checked address, not the name"
    assert request.headers["host"] == "rebinding.example:8080"


async def test_the_next_address_is_tried_when_one_is_dead():
    network = Recorder(OTHER)
    async with client(PublicTransport(answers([OTHER, PUBLIC]), inner=network)) as sender:
        assert (await sender.post("http://hooks.example/", content=b"{}")).status_code == 204
    assert network.tried == [OTHER, PUBLIC]
    assert network.requests[-1].read() == b"{}"
    network = Recorder(OTHER, PUBLIC)
    async with client(PublicTransport(answers([OTHER, PUBLIC]), inner=network)) as sender:
        with pytest.raises(httpx.ConnectError):
            await sender.post("http://hooks.example/")


async def test_a_name_without_addresses_is_a_failed_connection():
    async with client(PublicTransport()) as sender:
        with pytest.raises(httpx.ConnectError, match=r"nowhere\.invalid cannot be resolved"):
            await sender.post("http://nowhere.invalid/")
    async with client(PublicTransport(answers([]))) as sender:
        with pytest.raises(httpx.ConnectError, match="has no address"):
            await sender.post("http://hooks.example/")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a key and a certificate that is good for hooks.example alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hooks.example")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "hooks.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


async def test_the_certificate_is_that_of_the_name(certificate):
    names = []
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate)
    theirs.sni_callback = lambda socket, name, context: names.append(name)
    ours = httpx.AsyncHTTPTransport(verify=ssl.create_default_context(cafile=str(certificate)), limits=UNKEPT)
    here = ["127.0.0.1"]
    with web(lambda came: Answer(204), tls=theirs) as there:
        transport = PublicTransport(answers(here, here), allowed=lambda address: address == "127.0.0.1", inner=ours)
        async with client(transport) as sender:
            answer = await sender.post(f"https://hooks.example:{there.port}/hook")
            assert answer.status_code == 204
            # The same address under another name: neither the certificate nor the open connection serves it.
            with pytest.raises(httpx.ConnectError, match=r"not valid for 'other\.example'"):
                await sender.post(f"https://other.example:{there.port}/hook")
        assert [came.headers["host"] for came in there.came] == [f"hooks.example:{there.port}"]
    assert names == ["hooks.example", "other.example"]
