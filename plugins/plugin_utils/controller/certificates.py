"""The routers' certificate and key, read and examined on the controller: before any host is asked, and before they are sent."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import ipaddress
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ansible.errors import AnsibleError

from ansible_collections.lockstep.vllm.plugins.module_utils.core.errors import StopError
from ansible_collections.lockstep.vllm.plugins.module_utils.core.wording import span
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import endpoints
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.findings import Finding, refuse, warn
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.settings import Settings

if TYPE_CHECKING:  # ansible-core requires it; a run without TLS does not load it
    from cryptography import x509

CERTIFICATE: Final = "vllm_haproxy_tls_certificate"
KEY: Final = "vllm_haproxy_tls_key"
SOON = datetime.timedelta(days=14)
"""So long before it expires, whoever runs a playbook is warned."""
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)

Read = Callable[[str], str]
"""The text of a file on the controller, out of its vault where it is in one; raises AnsibleError or OSError."""


class CertificateError(StopError):
    """Certificate or key cannot be used; the message names the variable."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A certificate that belongs to its key.

    Attributes:
        bundle: certificate, chain and key as one PEM text; in no representation of it.
        begins, expires: when it is valid.
        names: DNS names and addresses that it is valid for.
        chained: whether each certificate was signed by the next one.
    """

    bundle: str = dataclasses.field(repr=False)
    begins: datetime.datetime
    expires: datetime.datetime
    names: tuple[str, ...]
    chained: bool = True

    def covers(self, name: str) -> bool:
        """Whether a client that asks for ``name``, a DNS name or an address, accepts it."""
        return any(_matches(pattern, name) for pattern in self.names)


def given(settings: Settings) -> bool:
    """Whether a router's variables ask for TLS, wholly or in part."""
    return bool(settings.get(CERTIFICATE) or settings.get(KEY))


def load(certificate: str, key: str, read: Read) -> Certificate:
    """What the two variables mean: each PEM text, or the absolute path of a file.

    Raises:
        CertificateError: one is missing or is not what it should be, or the key is not the certificate's.
    """
    from cryptography import x509

    chain = [block for kind, block in _blocks(CERTIFICATE, certificate, read) if kind == "CERTIFICATE"]
    keys = [block for kind, block in _blocks(KEY, key, read) if kind.endswith("PRIVATE KEY")]
    if not chain:
        raise CertificateError(f"{CERTIFICATE} holds no certificate (BEGIN CERTIFICATE)")
    if len(keys) != 1:
        raise CertificateError(f"{KEY} holds {len(keys) or 'no'} keys (BEGIN PRIVATE KEY): one is wanted")
    try:
        certificates = [x509.load_pem_x509_certificate(block.encode()) for block in chain]
    except ValueError:
        raise CertificateError(f"{CERTIFICATE} is damaged: no certificate can be read from it") from None
    public = _public(keys[0])
    if _spki(certificates[0].public_key()) != public:
        where = next((n for n, each in enumerate(certificates, 1) if _spki(each.public_key()) == public), None)
        if where is not None:
            raise CertificateError(f"{CERTIFICATE}: the certificate of the key is number {where}, put it first")
        raise CertificateError(f"{KEY} does not fit {CERTIFICATE}: it is the key of another certificate")
    first = certificates[0]
    return Certificate(
        bundle="\n".join([*chain, *keys, ""]),
        begins=first.not_valid_before_utc,
        expires=first.not_valid_after_utc,
        names=_names(first),
        chained=all(one.issuer == issuer.subject for one, issuer in itertools.pairwise(certificates)),
    )


def digest(settings: Settings, read: Read) -> str | None:
    """What decides that a router is due: the content, as a renewed certificate has the old one's path. None without TLS."""
    if not given(settings):
        return None
    try:
        bundle = load(settings.get(CERTIFICATE) or "", settings.get(KEY) or "", read).bundle
    except CertificateError as error:
        bundle = str(error)
    return hashlib.sha256(bundle.encode()).hexdigest()


def findings(settings: Settings, address: str, read: Read, now: datetime.datetime) -> Iterator[Finding]:
    """What is wrong with the certificate of one router.

    Args:
        settings: its variables.
        address: where its requests come from, which clients use where vllm_haproxy_api_name is not set.
        now: with a time zone.
    """
    if not given(settings):
        return
    try:
        found = load(settings.get(CERTIFICATE) or "", settings.get(KEY) or "", read)
    except CertificateError as error:
        yield refuse(str(error))
        return
    yield from problems(found, now)
    name = endpoints.router_name(settings, address)
    if not found.covers(name):
        listed = ", ".join(found.names) or "no name at all"
        if settings.get("vllm_haproxy_api_name"):
            yield refuse(f"{CERTIFICATE} is not valid for vllm_haproxy_api_name ({name}); it is for {listed}")
        else:
            yield warn(
                f"{CERTIFICATE} is valid for {listed}, not for {name}: set vllm_haproxy_api_name to what clients use"
            )


def problems(found: Certificate, now: datetime.datetime) -> Iterator[Finding]:
    """What is wrong with a certificate at the moment ``now``."""
    if now < found.begins:
        yield refuse(
            f"{CERTIFICATE} is not valid before {found.begins:%Y-%m-%d %H:%M} UTC: check the controller's clock"
        )
    elif found.expires <= now:
        yield refuse(f"{CERTIFICATE} has expired on {found.expires:%Y-%m-%d %H:%M} UTC: renew it")
    elif found.expires - now < SOON:
        left = span((found.expires - now).total_seconds())
        yield warn(f"{CERTIFICATE} expires in {left}, on {found.expires:%Y-%m-%d %H:%M} UTC: renew it")
    if not found.chained:
        yield warn(
            f"{CERTIFICATE}: its certificates are not in order, each signed by the next: some clients will refuse them"
        )


def _blocks(variable: str, value: str, read: Read) -> Sequence[tuple[str, str]]:
    text = str(value or "").strip()
    if not text:
        raise CertificateError(f"{variable} is not set: TLS takes both {CERTIFICATE} and {KEY}")
    if not text.startswith("-----BEGIN "):
        if not Path(text).is_absolute() or "\n" in text:
            raise CertificateError(
                f"{variable} is neither PEM text nor an absolute path: {{{{ inventory_dir }}}}-files/…"
            )
        try:
            text = read(text)
        except (AnsibleError, OSError, UnicodeDecodeError) as error:
            cause = str(getattr(error, "strerror", None) or error).splitlines()[0]
            raise CertificateError(f"{variable}: the file cannot be read on the controller: {cause}") from error
    return [(found[1], found[0].replace("\r", "")) for found in _BLOCK.finditer(text)]


def _public(key: str) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        return _spki(serialization.load_pem_private_key(key.encode(), password=None).public_key())
    except TypeError:
        raise CertificateError(
            f"{KEY} has a passphrase, which HAProxy cannot ask for: keep it in a vault without one"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{KEY} is damaged: no key can be read from it") from None


def _spki(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    addresses = found.get_values_for_type(x509.IPAddress)
    return (*found.get_values_for_type(x509.DNSName), *map(str, addresses))


def _matches(pattern: str, name: str) -> bool:
    """As clients compare (RFC 6125): a star stands for one whole label, the first; addresses only with addresses."""
    try:
        return ipaddress.ip_address(pattern) == ipaddress.ip_address(name)
    except ValueError:
        pass
    one, other = pattern.lower().rstrip("."), name.lower().rstrip(".")
    if one.startswith("*."):
        label, _dot, rest = other.partition(".")
        return bool(label) and rest == one[2:]
    return one == other
