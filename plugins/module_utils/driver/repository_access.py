"""What a repository lets a host in by: a user's password, a client certificate. And how apt is given it.

No secret of these stands in an argument, in a file that others read, or in what is printed: apt reads the password from
``auth.conf.d`` as root, and the key as its own user ``_apt``.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..core.system import read_text

if TYPE_CHECKING:
    import ssl

AUTH = "etc/apt/auth.conf.d/lockstep-nvidia.conf"
CONFIGURATION = "etc/apt/apt.conf.d/80lockstep-nvidia"
CERTIFICATE = "etc/apt/lockstep-nvidia.crt"
KEY = "etc/apt/lockstep-nvidia.key"
_APT = "_apt"
_PREFIX = "repository_"


@dataclasses.dataclass(frozen=True)
class Access:
    """Attributes:
    username, password: of basic authentication; empty where there is none.
    client_certificate, client_key: PEM texts; empty where there are none.
    """

    username: str = ""
    password: str = dataclasses.field(default="", repr=False)
    client_certificate: str = dataclasses.field(default="", repr=False)
    client_key: str = dataclasses.field(default="", repr=False)

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> Access:
        """From role nvidia_driver's variables, less ``nvidia_driver_``: ``repository_username`` and so on."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: str(given.get(_PREFIX + name) or "") for name in names})

    def of(self, address: str, repository: str) -> Access:
        """What of it is for ``address``: all where that is of the repository's own server, else nothing."""
        return self if _origin(address) == _origin(repository) else Access()

    def header(self) -> str:
        """The value of ``Authorization``; empty where there is no user."""
        if not self.username:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()

    @contextlib.contextmanager
    def tls(self) -> Iterator[ssl.SSLContext | None]:
        """For a connection with the client certificate; None where there is none. Python takes it from files alone."""
        if not self.client_certificate:
            yield None
            return
        import ssl

        context = ssl.create_default_context()
        with tempfile.TemporaryDirectory(prefix="lockstep-") as name:
            certificate, key = Path(name, "crt"), Path(name, "key")
            for path, text in ((certificate, self.client_certificate), (key, self.client_key)):
                write_secret(path, text)
            context.load_cert_chain(certificate, key)
        yield context


@dataclasses.dataclass(frozen=True)
class File:
    """A file on a host; one without ``content`` is not to be there."""

    path: str
    content: str
    owner: str = "root"
    mode: str = "0600"


def files(access: Access, repository: str) -> list[File]:
    """What apt needs on a host. The key is of apt's own user, who reads it."""
    paths = (f"/{CERTIFICATE}", f"/{KEY}")
    certificate = access.client_certificate
    return [
        File(f"/{AUTH}", auth(access, repository)),
        File(f"/{CERTIFICATE}", certificate, mode="0644"),
        File(f"/{KEY}", access.client_key if certificate else "", _APT),
        File(f"/{CONFIGURATION}", configuration(repository, *paths) if certificate else "", mode="0644"),
    ]


def auth(access: Access, repository: str) -> str:
    """A line of apt_auth.conf(5); empty where there is no user."""
    if not access.username:
        return ""
    parts = urlsplit(repository)
    machine = f"{parts.scheme}://{_host(repository)}{parts.path.rstrip('/')}/"
    return f"machine {machine} login {access.username} password {access.password}\n"


def configuration(repository: str, certificate: str, key: str) -> str:
    """apt's configuration for a client certificate, for this server alone."""
    name = f"Acquire::https::{urlsplit(repository).hostname}"
    return f'{name}::SslCert "{certificate}";\n{name}::SslKey "{key}";\n'


def installed(repository: str, root: Path = Path("/")) -> Access:
    """What is written on this host by now, for the server of ``repository``."""
    found: dict[str, str] = {}
    line = re.match(r"machine (\S+) login (\S+) password (\S+)$", read_text(root / AUTH).strip())
    if line and _origin(line[1]) == _origin(repository):
        found |= {"username": line[2], "password": line[3]}
    if f"::{urlsplit(repository).hostname}::" in read_text(root / CONFIGURATION):
        found |= {"client_certificate": read_text(root / CERTIFICATE), "client_key": read_text(root / KEY)}
    return Access(**found)


def problems(access: Access, repository: str) -> list[str]:
    """What cannot be meant, or cannot be said to apt; each names the variable."""
    found, parts = [], urlsplit(repository)
    if parts.username or parts.password:
        found.append(
            "nvidia_driver_repository_url holds a user or a password, and everybody on the host reads it: set "
            "nvidia_driver_repository_username and nvidia_driver_repository_password"
        )
    if bool(access.username) != bool(access.password):
        found.append("set nvidia_driver_repository_username and nvidia_driver_repository_password together")
    if re.search(r"\s", access.username + access.password):
        found.append(
            "nvidia_driver_repository_username and _password may hold no white space, which apt_auth.conf cannot"
        )
    if bool(access.client_certificate) != bool(access.client_key):
        found.append("set nvidia_driver_repository_client_certificate and nvidia_driver_repository_client_key together")
    for name, text in (("certificate", access.client_certificate), ("key", access.client_key)):
        if text and "-----BEGIN " not in text:
            found.append(f"nvidia_driver_repository_client_{name} is no PEM text: put the file's content there")
    if access.client_certificate and parts.scheme != "https":
        found.append("a client certificate needs nvidia_driver_repository_url to begin with https://")
    return found


def in_the_clear(access: Access, repository: str) -> bool:
    """Whether the password passes the network as it is."""
    return bool(access.password) and urlsplit(repository).scheme == "http"


def write_secret(path: Path, text: str) -> None:
    """A new file that its owner alone may read, from its first byte on."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)


def _host(address: str) -> str:
    return urlsplit(address).netloc.rpartition("@")[2].lower()


def _origin(address: str) -> tuple[str, str]:
    return urlsplit(address).scheme.lower(), _host(address)
