"""Certificate and key of the routers, before anything is sent: what refuses a run, and what only warns."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import certificates
from tests.unit.documented import documented

NOW = datetime.datetime(2026, 11, 27, 12, 0, tzinfo=datetime.UTC)
Key = ec.EllipticCurvePrivateKey
KEY, OTHER, AUTHORITY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
PEM = serialization.Encoding.PEM


def certificate(
    days: float = 90, since: float = -1, key: Key = KEY, issuer: str = "ca", name: str = "api.example.com"
) -> str:
    """One that is valid from ``since`` to ``days`` after NOW."""
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + datetime.timedelta(days=since))
        .not_valid_after(NOW + datetime.timedelta(days=days))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.DNSName(name),
                    x509.DNSName("*.gpu.example.com"),
                    x509.IPAddress(ipaddress.ip_address("10.0.0.5")),
                ]
            ),
            False,
        )
    )
    return made.sign(AUTHORITY, hashes.SHA256()).public_bytes(PEM).decode()


def private(key: Key = KEY, passphrase: bytes = b"") -> str:
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, how).decode()


GOOD = certificate()
CA = certificate(key=AUTHORITY, issuer="root", name="ca")


def settings(chain: str = GOOD, key: str | None = None, **more: Any) -> Any:
    return {certificates.CERTIFICATE: chain, certificates.KEY: private() if key is None else key, **more}


def found(given: Any, read: Callable[[str], str] = lambda path: Path(path).read_text()) -> list[tuple[bool, str]]:
    return [(each.refuses, str(each.stop)) for each in certificates.findings(given, "10.0.0.5", read, NOW)]


@pytest.mark.parametrize(
    ("given", "refuses", "fragment"),
    [
        (settings(certificate(days=-1 / 24)), True, "vllm_haproxy_tls_certificate has expired on 2026-11-27 11:00 UTC: renew it"),
        (settings(certificate(since=1)), True, "vllm_haproxy_tls_certificate is not valid before 2026-11-28 12:00 UTC: check the controller's clock"),
        (settings(certificate(days=13)), False, "vllm_haproxy_tls_certificate expires in "),
        (settings(key=private(OTHER)), True, "vllm_haproxy_tls_key does not fit vllm_haproxy_tls_certificate: it is the key of another certificate"),
        (settings(CA + GOOD), True, "the certificate of the key is number 2, put it first"),
        (settings(GOOD + certificate(key=OTHER, name="other")), False, "its certificates are not in order"),
        (settings(key=private(passphrase=b"x")), True, "vllm_haproxy_tls_key has a passphrase, which HAProxy cannot ask for"),
        (settings(key=""), True, "vllm_haproxy_tls_key is not set"),
        (settings(chain=""), True, "vllm_haproxy_tls_certificate is not set"),
        (settings(key="router.key"), True, "vllm_haproxy_tls_key is neither PEM text nor an absolute path"),
        (settings(key="/nowhere/router.key"), True, "vllm_haproxy_tls_key: the file cannot be read on the controller: No such file or directory"),
        (settings(chain=private()), True, "vllm_haproxy_tls_certificate holds no certificate"),
        (settings(key=GOOD), True, "vllm_haproxy_tls_key holds no keys"),
        (settings(key="-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), True, "vllm_haproxy_tls_key is damaged"),
        (settings("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), True, "vllm_haproxy_tls_certificate is damaged"),
        (settings(vllm_haproxy_api_name="www.example.com"), True, "is not valid for vllm_haproxy_api_name (www.example.com)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_reported_and_no_key_with_it(given: Any, refuses: bool, fragment: str) -> None:
    ((refused, line),) = found(given)
    assert refused is refuses
    assert fragment in line
    assert "PRIVATE KEY-----" not in line


@pytest.mark.parametrize(
    "more", [{}, {"vllm_haproxy_api_name": "API.example.com"}, {"vllm_haproxy_api_name": "one.gpu.example.com"}]
)
def test_a_good_one_says_nothing(more: dict[str, Any]) -> None:
    assert found(settings(GOOD + CA, **more)) == []
    assert found({}) == []


def test_an_address_that_clients_cannot_verify_is_a_warning() -> None:
    (one,) = certificates.findings(settings(), "10.0.0.6", str, NOW)
    assert not one.refuses
    assert "not for 10.0.0.6: set vllm_haproxy_api_name to what clients use" in str(one.stop)


@pytest.mark.parametrize(
    ("name", "covered"),
    [("one.gpu.example.com", True), ("a.one.gpu.example.com", False), ("gpu.example.com", False), ("10.0.0.50", False)],
)
def test_a_star_is_one_label(name: str, covered: bool) -> None:
    assert certificates.load(GOOD, private(), str).covers(name) is covered


def test_files_are_read_also_from_a_vault_and_a_renewed_one_has_another_digest(tmp_path: Path) -> None:
    (tmp_path / "router.pem").write_text(GOOD + CA)
    secrets = [("default", VaultSecret(b"secret"))]
    (tmp_path / "router.key").write_bytes(VaultLib(secrets).encrypt(private()))
    loader = DataLoader()
    loader.set_vault_secrets(secrets)
    given = settings(str(tmp_path / "router.pem"), str(tmp_path / "router.key"))
    assert found(given, loader.get_text_file_contents) == []
    loaded = certificates.load(*given.values(), loader.get_text_file_contents)
    assert loaded.bundle == f"{GOOD}{CA}{private()}"
    assert "PRIVATE" not in repr(loaded)
    before = certificates.digest(given, loader.get_text_file_contents)
    (tmp_path / "router.pem").write_text(certificate(days=180))
    assert certificates.digest(given, loader.get_text_file_contents) != before
    assert certificates.digest({}, str) is None


def test_one_file_may_hold_both(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(f"{private()}\n{GOOD}")
    assert certificates.load(str(both), str(both), lambda path: Path(path).read_text()).bundle == f"{GOOD}{private()}"


def test_messages_are_those_of_the_page() -> None:
    for case, given in {
        "a certificate that has expired": settings(certificate(days=-1 / 24)),
        "a key of another certificate": settings(key=private(OTHER)),
    }.items():
        ((_refuses, line),) = found(given)
        documented(case, line)
