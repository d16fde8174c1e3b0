"""TLS, and users that may do no more than docs/redis.md allows them: alone and on a Cluster."""

import asyncio
import datetime
import ipaddress
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.exceptions import NoPermissionError

from cache.client import connect
from cache.diff import diff
from cache.layout import MISSES, RELEASE, bucket_of, tail_key
from cache.people import say_people, withdraw_people
from cache.publish import publish
from cache.release import current_release, rollback, standing
from labels.errors import ServiceError
from tests.cache.servers import Tls, binaries, cluster, server
from tests.cache.shop import Echo, looking, publish_queries, release, rows

ALLOWED = [line for line in Path("docs/redis.md").read_text().splitlines() if line.startswith("ACL SETUSER")]


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A certificate of our own; skips where the server on PATH has no TLS."""
    binary = binaries().get("redis")
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stillhouse test")])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pair = Tls(folder / "certificate.pem", folder / "key.pem")
    pair.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    tried = binary and subprocess.run([binary, "--tls-port", "1", "--port", "0"], capture_output=True, timeout=30)
    if not tried or b"Failed to configure TLS" not in tried.stdout:
        pytest.skip("no redis-server with TLS on PATH")
    return pair


@pytest.fixture(scope="module", params=["alone", "cluster"])
def guarded(tls, request):
    """The URL of a server with TLS, whether it is a Cluster's, and the administrator's client of it."""
    if request.param == "alone":
        with server(binaries()["redis"], tls=tls) as url, closing(connect(url)) as admin:
            yield _with_users(admin, url, False)
    else:
        with cluster(binaries()["redis"], tls=tls) as running, closing(connect(running.url, True)) as admin:
            yield _with_users(admin, running.url, True)


def _with_users(admin, url, is_cluster):
    where = {"target_nodes": admin.ALL_NODES} if is_cluster else {}
    for line in ALLOWED:
        admin.execute_command(*line.replace("PASSWORD", "pass/word").split(), **where)
    admin.execute_command(
        "ACL", "SETUSER", "nobody", "on", ">pass/word", "+@connection", "+cluster", "+command", **where
    )
    return url, is_cluster


def of(guarded, user, password="pass%2Fword"):
    url, is_cluster = guarded
    return url.replace("rediss://", f"rediss://{user}:{password}@"), is_cluster


def test_the_night_s_user_can_publish_roll_back_and_compare(guarded):
    with closing(connect(*of(guarded, "stillhouse-night"))) as client:
        first = publish_queries(client, 1, *map(str, range(100)))
        done = publish(client, rows("milk"), release(2, 1), kept=2)
        assert (done.note, done.measured is not None) == ("", True)
        publish(client, rows("bread"), release(3, 1), kept=2)
        assert rollback(client).release == "r2"
        say_people(client, {"milk": "[]"})
        withdraw_people(client, ["milk"])
        assert first not in standing(client)
        assert [one.kind for one in diff(client, release(2, 1), release(3, 1))] == ["removed", "added"]
        with pytest.raises(NoPermissionError):
            client.set("session:42", "ours")
        with pytest.raises(NoPermissionError):
            client.flushdb()


def test_the_lookups_user_can_answer_from_cache_and_student_and_keep_its_answers(guarded):
    url, is_cluster = of(guarded, "stillhouse-lookup")
    with closing(connect(*of(guarded, "stillhouse-night"))) as client:
        made = publish_queries(client, 11, "milk")
        kept = tail_key("g11", bucket_of("bread", made.buckets), "bread")

        async def ask():
            async with looking(url, Echo(), cluster=is_cluster) as lookup, asyncio.timeout(20):
                sources = [(await lookup.get(query)).source for query in ("milk", "bread")]
                while not client.exists(kept):  # it is written after the answer was given
                    await asyncio.sleep(0.02)
                return sources

        assert asyncio.run(ask()) == ["cache", "student"]
        assert [fields[b"q"] for _, fields in client.xrange(MISSES)] == [b"bread"]
    with closing(connect(url, is_cluster)) as client, pytest.raises(NoPermissionError):
        client.delete(RELEASE)


def test_whoever_is_not_let_in_is_told_without_the_password(guarded):
    for user, password, says in (
        ("stillhouse-night", "wrong", "invalid username-password"),
        ("nobody", "pass%2Fword", "permissions"),
    ):
        with (
            pytest.raises(ServiceError, match=says) as caught,
            closing(connect(*of(guarded, user, password))) as client,
        ):
            current_release(client)
        assert "docs/redis.md" in str(caught.value)
        assert "wrong" not in str(caught.value)
        assert "word@" not in str(caught.value)


def test_a_certificate_that_is_not_trusted_is_one_clear_error(guarded):
    url, is_cluster = guarded
    for untrusting in (url.partition("?")[0], url.partition("?")[0] + "?ssl_ca_certs=/nowhere.pem"):
        with pytest.raises(ServiceError, match="wanted Redis at"), closing(connect(untrusting, is_cluster)) as client:
            current_release(client)
