"""A router's certificate: put in place after HAProxy has read it, and seen as a client sees it."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.lockstep.vllm.plugins.module_utils import haproxy_tls
from ansible_collections.lockstep.vllm.plugins.module_utils.haproxy_tls import Checked, Seen

CAPTURED = Path(__file__).parents[1] / "fixtures/haproxy/2.6.12"


def bundle(name: str = "api.example.com") -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    begins = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return (made.public_bytes(pem) + secret).decode()


ONE, TWO = bundle(), bundle()


def test_it_is_readable_by_its_owner_alone_and_haproxy_has_read_it_first(tmp_path: Path) -> None:
    path, asked = tmp_path / "lockstep.pem", []

    def check(argv: list[str]) -> Checked:
        configuration = Path(argv[-1]).read_text()
        asked.append(argv[:-1])
        scratch = Path(configuration.partition(" crt ")[2].split()[0])
        assert scratch.read_text() == ONE
        assert scratch.stat().st_mode & 0o777 == 0o400
        assert not path.exists()
        assert "PRIVATE KEY" not in configuration
        return Checked(0, "")

    assert not haproxy_tls.installed(path, ONE)
    haproxy_tls.install(path, ONE, check)
    assert asked == [["haproxy", "-c", "-f"]]
    assert haproxy_tls.installed(path, ONE)
    assert list(tmp_path.iterdir()) == [path]
    path.chmod(0o644)
    assert not haproxy_tls.installed(path, ONE)


def test_what_haproxy_cannot_use_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "lockstep.pem"
    haproxy_tls.install(path, ONE, lambda _argv: Checked(0, ""))
    with pytest.raises(haproxy_tls.CertificateError, match="unable to load SSL certificate"):
        haproxy_tls.install(path, TWO, lambda _argv: Checked(1, (CAPTURED / "check-weak.txt").read_text()))
    assert haproxy_tls.installed(path, ONE)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("status", "errors", "expected"),
    [
        (1, "check-weak.txt", "unable to load SSL certificate into SSL Context '/etc/haproxy/weak.pem'."),
        (1, "check-nokey.txt", "No Private Key found in '/etc/haproxy/nokey.pem.key'."),
        (
            1,
            "check-none.txt",
            "unable to stat SSL certificate from file '/etc/haproxy/none.pem' : No such file or directory.",
        ),
        (1, "", "exit status 1"),
        (None, "", "it did not answer"),
    ],
)
def test_the_reason_is_haproxys_own(status: int | None, errors: str, expected: str) -> None:
    text = (CAPTURED / errors).read_text() if errors else ""
    assert haproxy_tls.reason(Checked(status, text)) == expected


@contextlib.contextmanager
def listening(folder: Path, pem: str) -> Iterator[int]:
    file = folder / "served.pem"
    file.write_text(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = server.accept()
                    with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as line:
                        line.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])


def test_a_client_sees_which_certificate_and_which_protocols(tmp_path: Path) -> None:
    with listening(tmp_path, ONE) as port:
        seen = haproxy_tls.see("*", port)
    assert seen == Seen(haproxy_tls.fingerprint(ONE), "TLSv1.3", "h2")
    assert seen.sha256 != haproxy_tls.fingerprint(TWO)


def test_a_text_without_a_certificate_has_no_fingerprint() -> None:
    with pytest.raises(haproxy_tls.CertificateError, match="no certificate"):
        haproxy_tls.fingerprint(ONE[ONE.index("-----BEGIN PRIVATE") :])


class Clock:
    """Time that passes where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("answers", "reloads"),
    [
        (["new"], 0),
        ([OSError("refused"), "new"], 0),
        (["old", "old", "new"], 0),
        (["old"] * 40 + ["new"], 0),
        (["old"] * 41, 1),
    ],
    ids=["at once", "refused first", "soon", "just before a third of the deadline", "not within a third of it"],
)
def test_a_reload_that_is_missing_is_made_up_for(answers: list[str | OSError], reloads: int) -> None:
    """Before a third of the deadline a reload may be under way; after it, none is."""
    left, reloaded, clock = list(answers), [], Clock()

    def look() -> Seen:
        answer = left.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return Seen(answer, "TLSv1.3", "h2")

    def reload() -> None:
        reloaded.append(clock.now)
        left[:] = ["new"]

    seen, took = haproxy_tls.wait_presented("new", look, reload, 30, clock=clock, sleep=clock.sleep)
    assert seen.sha256 == "new"
    assert (reloaded, took) == ([10.0] * reloads, bool(reloads))


def test_another_certificate_to_the_end_is_a_failure() -> None:
    clock = Clock()
    with pytest.raises(haproxy_tls.CertificateError, match="clients get another certificate"):
        haproxy_tls.wait_presented("new", lambda: Seen("old", "", ""), lambda: None, 30, clock=clock, sleep=clock.sleep)
    assert clock.now == 30


@pytest.mark.parametrize(
    ("address", "where"), [("*", "127.0.0.1"), ("::", "::1"), ("0.0.0.0", "127.0.0.1"), ("10.0.0.5", "10.0.0.5")]
)
def test_a_host_reaches_its_own_listener(address: str, where: str) -> None:
    assert haproxy_tls.loopback(address) == where
