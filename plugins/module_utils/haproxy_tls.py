"""The certificate of a router: put in place once HAProxy can use it, and seen as clients see it."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

MODE = 0o400
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_ALERT = re.compile(r"in section '\w+' : (.+)$")
_ALERTS = 4
_CHECKED = """\
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
frontend check
    bind 127.0.0.1:1 ssl crt {path} alpn h2,http/1.1 ssl-min-ver TLSv1.2
    http-request return status 200
"""
"""A configuration of which HAProxy reads the certificate and its key; it is checked and never run."""


class CertificateError(Exception):
    """The certificate cannot be used, or clients do not get it."""


class Checked(NamedTuple):
    """How a command ended: its exit status (None where it was not found, or did not end), and what it wrote to stderr."""

    status: int | None
    errors: str


class Seen(NamedTuple):
    """What a client got: SHA-256 of the certificate, and the protocols that were agreed on."""

    sha256: str
    tls: str
    alpn: str


Check = Callable[[list[str]], Checked]


def installed(path: Path, bundle: str) -> bool:
    """Whether ``path`` holds just that, and nobody but its owner may read it."""
    try:
        return path.read_text(encoding="ascii") == bundle and path.stat().st_mode & 0o777 == MODE
    except (OSError, UnicodeDecodeError):
        return False


def install(path: Path, bundle: str, check: Check) -> None:
    """Put certificate, chain and key in place in one step, after HAProxy has read them; until then what lay there stays.

    Raises:
        CertificateError: HAProxy cannot use them.
        OSError: they cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
        scratch, configuration = Path(name, path.name), Path(name, "check.cfg")
        handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(bundle)
            stream.flush()
            os.fchmod(handle, MODE)
            os.fsync(handle)
        configuration.write_text(_CHECKED.format(path=scratch), encoding="ascii")
        done = check(["haproxy", "-c", "-f", str(configuration)])
        if done.status != 0:
            raise CertificateError(f"HAProxy cannot use the certificate: {reason(done)}")
        os.replace(scratch, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def reason(done: Checked) -> str:
    """What HAProxy said of a configuration that it cannot use; it names files and lines, and quotes no key."""
    if done.status is None:
        return done.errors.strip() or "it did not answer"
    alerts = [line.partition(": ")[2].strip() for line in done.errors.splitlines() if line.startswith("[ALERT]")]
    said = [found[1] for alert in alerts if (found := _ALERT.search(alert))]
    return "; ".join(said[:_ALERTS]) or f"exit status {done.status}"


def fingerprint(bundle: str) -> str:
    """SHA-256 of the first certificate of a PEM text, which is the one that clients get.

    Raises:
        CertificateError: there is none.
    """
    found = _CERTIFICATE.search(bundle)
    if found is None:
        raise CertificateError("it holds no certificate")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(found[0])).hexdigest()


def see(address: str, port: int, timeout: float = 5.0) -> Seen:
    """What a client gets. Nothing is verified: which certificate it is, is the question.

    Raises:
        OSError: no TLS there.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((loopback(address), port), timeout=timeout) as plain,
        context.wrap_socket(plain) as line,
    ):
        certificate = line.getpeercert(binary_form=True) or b""
        return Seen(hashlib.sha256(certificate).hexdigest(), line.version() or "", line.selected_alpn_protocol() or "")


def loopback(address: str) -> str:
    """Where this host reaches a listener of its own: any of its addresses where it listens at all of them."""
    return {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(address, address)


def wait_presented(
    wanted: str,
    look: Callable[[], Seen],
    reload: Callable[[], None],
    deadline: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Seen, bool]:
    """Wait until clients get the ``wanted`` certificate; returns what they get, and whether it took a reload.

    A reload takes a moment, and one that an earlier run did not come to is made up for after a third of ``deadline`` seconds.

    Raises:
        CertificateError: they get another, or none.
    """
    began = clock()
    reloaded, last = False, "nothing answers"
    while True:
        try:
            seen = look()
        except OSError as error:
            last = str(error)
        else:
            if seen.sha256 == wanted:
                return seen, reloaded
            last = f"clients get another certificate (SHA-256 {seen.sha256[:16]}…, in the file is {wanted[:16]}…)"
        waited = clock() - began
        if waited >= deadline:
            raise CertificateError(f"{last}, {deadline:.0f} s after HAProxy was reloaded")
        if waited >= deadline / 3 and not reloaded:
            reload()
            reloaded = True
        sleep(0.25)
