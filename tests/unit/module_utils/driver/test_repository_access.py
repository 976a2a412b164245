"""A mirror that lets in whom it knows: the real apt and a real server, with a password and with a client certificate.

The server is on this machine's loopback, apt in a root of its own.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import gzip
import hashlib
import http.server
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.filter import nvidia_repository as filters
from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult, run_command
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import (
    apt_root,
    keyring,
    preflight,
    repository_access,
)
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import repository as apt_repository
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.package_problems import Problem, ProblemKind
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.repository import Repository
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.repository_access import Access
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.transaction import Declared
from tests.unit.module_utils.driver.aptlab import Host, Key, digest, publish
from tests.unit.module_utils.driver.test_preflight import DESKTOP, VERSION, host, key

__all__ = ["host", "key"]

PASSWORD = "sesame-9f2c4e"
USER = Access("gpu", PASSWORD)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files, for those who say who they are; ``server.seen`` has every request with what it was let in by."""

    server: Any

    def do_GET(self) -> None:
        expected = "Basic " + base64.b64encode(f"gpu:{PASSWORD}".encode()).decode()
        given = self.headers.get("Authorization")
        self.server.seen.append((self.path, given))
        if self.server.asks_for_password and given != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="mirror"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path, context: ssl.SSLContext | None = None) -> Iterator[Any]:
    """A server of ``folder``; with ``context`` it speaks TLS, and without it asks for the password."""
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    server.seen, server.asks_for_password = [], context is None
    scheme = "http"
    if context is not None:
        server.socket, scheme = context.wrap_socket(server.socket, server_side=True), "https"
    server.url = f"{scheme}://localhost:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def publish_suite(folder: Path, index: str, key: Key, suite: str = "bookworm", component: str = "main") -> None:
    """The same packages below ``dists/``."""
    within = folder / "dists" / suite
    binary = within / component / "binary-amd64"
    binary.mkdir(parents=True)
    (binary / "Packages").write_text(index)
    (binary / "Packages.gz").write_bytes(gzip.compress(index.encode()))
    sums = ""
    for path in (binary / "Packages", binary / "Packages.gz"):
        content = path.read_bytes()
        sums += f" {hashlib.sha256(content).hexdigest()} {len(content)} {path.relative_to(within)}\n"
    head = f"Origin: tests\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\nComponents: {component}\n"
    (within / "Release").write_text(f"{head}Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n{sums}")
    key.gpg("--output", str(within / "InRelease"), "--clearsign", str(within / "Release"))


@pytest.fixture
def mirror(tmp_path: Path, key: Key) -> Path:
    """A mirror that has both layouts, and the key."""
    folder = tmp_path / "mirror"
    index = (DESKTOP / "Packages").read_text()
    publish(folder / "flat", index, key)
    publish_suite(folder / "suites", index, key)
    (folder / "key.gpg").write_bytes(key.public.read_bytes())
    return folder


LAYOUTS = [
    pytest.param("flat", apt_repository.FLAT, (), id="flat"),
    pytest.param("suites", "bookworm", ("main",), id="dists"),
]


def declared(server: Any, key: Key, where: str, suite: str, components: tuple[str, ...], access: Access) -> Declared:
    return Declared(
        VERSION, "mirror", "open", repository_url=f"{server.url}/{where}", keyring_url=f"{server.url}/key.gpg",
        keyring_sha256=key.sha256, repository_suite=suite, repository_components=components, access=access,
    )  # fmt: skip


class Watched:
    """Runs commands, and looks at who could have read a secret meanwhile."""

    def __init__(self, *secrets: str) -> None:
        self.secrets, self.argvs = secrets, list[list[str]]()
        self.holding: dict[str, int] = {}

    def __call__(self, argv: Sequence[str], deadline: float, **more: Any) -> CommandResult:
        self.argvs.append([str(part) for part in argv])
        answer = run_command(argv, deadline, **more)
        for path in apt_root.RUN.rglob("*"):
            if path.is_file() and any(secret.encode() in path.read_bytes() for secret in self.secrets):
                self.holding[path.name] = path.stat().st_mode & 0o777
        assert not any(secret in answer.stdout + answer.stderr for secret in self.secrets)
        return answer

    def check(self) -> None:
        """No secret stands in an argument, or in a file that others than its owner read."""
        assert not any(secret in part for argv in self.argvs for part in argv for secret in self.secrets)
        assert self.holding, "apt was given it by a file"
        assert set(self.holding.values()) == {0o600}, self.holding


def look(host: Host, asked: Declared, run: Watched) -> list[Problem]:
    files = digest(host.root)
    found = preflight.problems(asked, root=host.root, run=run)
    assert digest(host.root) == files
    assert list(apt_root.RUN.iterdir()) == []
    return found


@pytest.mark.parametrize(("where", "suite", "components"), LAYOUTS)
def test_preflight_simulates_with_the_password(
    host: Host, key: Key, mirror: Path, where: str, suite: str, components: tuple[str, ...]
) -> None:
    run = Watched(PASSWORD)
    with served(mirror) as server:
        found = look(host, declared(server, key, where, suite, components, USER), run)
        assert [(problem.kind, problem.warns) for problem in found] == [(ProblemKind.REPOSITORY, True)], found
        assert "in the clear" in found[0].cause
        assert {given for _path, given in server.seen[1:]} != {None}
        assert any("InRelease" in path for path, _given in server.seen), "apt itself has read it"
    run.check()


def test_a_wrong_password_is_said_and_not_shown(host: Host, key: Key, mirror: Path) -> None:
    wrong = Access("gpu", "guessed-77aa")
    with served(mirror) as server:
        found = [
            p for p in look(host, declared(server, key, "flat", "/", (), wrong), Watched("guessed-77aa")) if not p.warns
        ]
    assert [problem.kind for problem in found] == [ProblemKind.KEYRING]
    assert "401" in found[0].cause or "Unauthorized" in found[0].cause
    assert "guessed-77aa" not in found[0].cause


def test_another_server_is_not_given_the_password(host: Host, key: Key, mirror: Path) -> None:
    with served(mirror) as server, served(mirror) as other:
        asked = declared(server, key, "flat", "/", (), USER)
        _key, wrong = keyring.fetch(dataclasses.replace(asked, keyring_url=f"{other.url}/key.gpg"))
        assert len(wrong) == 1
        assert other.seen == [("/key.gpg", None)]


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates by it for the server and for a client."""
    folder = tmp_path_factory.mktemp("pki")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    ca = (f"{folder}/ca.key", f"{folder}/ca.crt")
    openssl("req", "-x509", *curve, "-keyout", ca[0], "-out", ca[1], "-subj", "/CN=tests", "-days", "2",
            "-addext", "keyUsage=critical,keyCertSign", "-addext", "subjectKeyIdentifier=hash")  # fmt: skip
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    for name in ("server", "client"):
        openssl(
            "req", *curve, "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.csr", "-subj", f"/CN={name}"
        )
        openssl("x509", "-req", "-in", f"{folder}/{name}.csr", "-CA", ca[1], "-CAkey", ca[0], "-CAcreateserial", "-days", "2",
                "-extfile", f"{folder}/names", "-out", f"{folder}/{name}.crt")  # fmt: skip
    return folder


@pytest.fixture
def certified(pki: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ssl.SSLContext, Access]:
    """A server's TLS that asks for a certificate, and the access of a client that has one; this machine trusts both."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.crt", pki / "server.key")
    context.load_verify_locations(pki / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    monkeypatch.setenv("SSL_CERT_FILE", str(pki / "ca.crt"))
    (tmp_path / "trust.conf").write_text(f'Acquire::https::CaInfo "{pki}/ca.crt";\n')
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "trust.conf"))
    texts = [(pki / f"client.{kind}").read_text() for kind in ("crt", "key")]
    return context, Access(client_certificate=texts[0], client_key=texts[1])


@pytest.mark.parametrize(("where", "suite", "components"), LAYOUTS)
def test_preflight_simulates_with_a_client_certificate(
    host: Host, key: Key, mirror: Path, certified: tuple[ssl.SSLContext, Access],
    where: str, suite: str, components: tuple[str, ...],
) -> None:  # fmt: skip
    context, access = certified
    run = Watched(access.client_key.splitlines()[1])
    with served(mirror, context) as server:
        assert look(host, declared(server, key, where, suite, components, access), run) == []
        assert any("InRelease" in path for path, _given in server.seen)
    run.check()


def test_without_the_certificate_nothing_is_read(
    host: Host, key: Key, mirror: Path, certified: tuple[ssl.SSLContext, Access]
) -> None:
    with served(mirror, certified[0]) as server:
        (problem,) = look(host, declared(server, key, "flat", "/", (), Access()), Watched("?"))
        assert problem.kind is ProblemKind.KEYRING
        assert server.seen == []


def write(root: Path, files: Sequence[dict[str, Any]]) -> None:
    """As the role does: modes and contents; owners are this test's own."""
    for file in files:
        if file["content"]:
            path = root / file["path"].lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file["content"])
            path.chmod(int(file["mode"], 8))


@pytest.mark.parametrize("how", ["password", "certificate"])
def test_what_the_role_writes_lets_the_host_s_apt_in(
    how: str,
    tmp_path: Path,
    mirror: Path,
    key: Key,
    certified: tuple[ssl.SSLContext, Access],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host's own apt, by the files alone; and the modules, which read these."""
    context, access = (None, USER) if how == "password" else certified
    root = tmp_path / "root"
    for name in ("etc/apt/sources.list.d", "etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/lib/dpkg",
                 "var/cache/apt/archives/partial"):  # fmt: skip
        (root / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    with served(mirror, context) as server:
        url = f"{server.url}/suites"
        given = {f"repository_{name}": value for name, value in dataclasses.asdict(access).items()}
        write(
            root,
            [
                {**file, "content": file["content"].replace('"/etc', f'"{root}/etc')}
                for file in filters.nvidia_repository_files(given, url)
            ],
        )
        assert repository_access.installed(url, root) == access
        offered = apt_repository.offered(Repository(url, "bookworm", ("main",)), repository_access.installed(url, root))
        assert f"{VERSION}-0ubuntu1" in offered["nvidia-utils-550"]
        description = Repository(url, "bookworm", ("main",)).description(str(key.public))
        (root / "etc/apt/sources.list.d/lockstep-nvidia.sources").write_text(description)
        trust = (tmp_path / "trust.conf").read_text()
        parts = root / "etc/apt/apt.conf.d"
        own = "".join(path.read_text() for path in sorted(parts.iterdir())) if parts.is_dir() else ""
        (tmp_path / "apt.conf").write_text(
            f'Dir "{root}";\nDir::State::status "{root}/var/lib/dpkg/status";\nAPT::Sandbox::User "root";\n{trust}{own}'
        )
        monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
        done = run_command(["apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update"], 60)
        assert done.ok, done.stdout + done.stderr
        shown = run_command(["apt-cache", "madison", "nvidia-utils-550"], 60).stdout
    assert f"{VERSION}-0ubuntu1" in shown


@pytest.mark.parametrize(
    ("access", "url", "path", "content", "owner", "mode"),
    [
        (USER, "https://m.example:8443/cuda/", repository_access.AUTH,
         f"machine https://m.example:8443/cuda/ login gpu password {PASSWORD}\n", "root", "0600"),
        (USER, "http://m.example/cuda", repository_access.AUTH,
         f"machine http://m.example/cuda/ login gpu password {PASSWORD}\n", "root", "0600"),
        (Access(), "https://m.example/", repository_access.AUTH, "", "root", "0600"),
        (Access(client_certificate="C", client_key="K"), "https://m.example:8443/", repository_access.KEY, "K", "_apt", "0600"),
        (Access(client_certificate="C", client_key="K"), "https://m.example:8443/", repository_access.CONFIGURATION,
         'Acquire::https::m.example::SslCert "/etc/apt/lockstep-nvidia.crt";\n'
         'Acquire::https::m.example::SslKey "/etc/apt/lockstep-nvidia.key";\n', "root", "0644"),
    ],
)  # fmt: skip
def test_files(access: Access, url: str, path: str, content: str, owner: str, mode: str) -> None:
    (file,) = [file for file in repository_access.files(access, url) if file.path == f"/{path}"]
    assert (file.content, file.owner, file.mode) == (content, owner, mode)
    assert not any(
        secret in file.content
        for file in repository_access.files(access, url)
        if file.mode != "0600"
        for secret in (PASSWORD, "K\n")
    )


PEM = "-----BEGIN CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("access", "url", "suite", "components", "said"),
    [
        (Access(), "https://m/cuda", "/", (), ""),
        (USER, "https://m/cuda", "bookworm", ("main",), ""),
        (Access(), "https://gpu:secret@m/cuda", "/", (), "nvidia_driver_repository_url holds a user or a password"),
        (Access("gpu"), "https://m/cuda", "/", (), "set nvidia_driver_repository_username and nvidia_driver_repository_password together"),
        (Access("gpu", "two words"), "https://m/cuda", "/", (), "may hold no white space"),
        (Access(client_certificate=PEM), "https://m/cuda", "/", (), "client_certificate and nvidia_driver_repository_client_key together"),
        (Access(client_certificate="/etc/x.crt", client_key=PEM), "https://m/", "/", (), "client_certificate is no PEM text"),
        (Access(client_certificate=PEM, client_key=PEM), "http://m/", "/", (), "to begin with https://"),
        (Access(), "https://m/", "bookworm", (), "so set nvidia_driver_repository_components"),
        (Access(), "https://m/", "/", ("main",), "a suite that does not end with /"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(
    access: Access, url: str, suite: str, components: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    asked = Declared(
        VERSION, "mirror", repository_url=url, repository_suite=suite, repository_components=components, access=access
    )
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=debian\n")
    found = [p.cause for p in preflight.problems(asked, busy=True, root=tmp_path) if p.kind is ProblemKind.REPOSITORY]
    assert (said in found[0]) if said else found == [], found
    assert not any(secret in cause for cause in found for secret in ("secret", "two words"))


@pytest.mark.parametrize(
    ("keyring_url", "arguments"),
    [
        ("https://m/key.asc", {"url_username": "gpu", "url_password": PASSWORD, "force_basic_auth": True}),
        ("http://m/key.asc", {}),
        ("https://other/key.asc", {}),
    ],
)
def test_the_key_is_asked_for_with_the_password_on_the_mirror_alone(
    keyring_url: str, arguments: dict[str, Any]
) -> None:
    given = {"repository_username": "gpu", "repository_password": PASSWORD}
    assert filters.nvidia_repository_key_access(given, "https://m/cuda", keyring_url) == arguments


@pytest.mark.parametrize(
    ("repository", "indexes"),
    [
        (Repository("https://m/cuda/"), ["https://m/cuda"]),
        (Repository("https://m/cuda", "x86_64/"), ["https://m/cuda/x86_64"]),
        (Repository("https://m/cuda/", "bookworm", ("main", "extra")),
         ["https://m/cuda/dists/bookworm/main/binary-amd64", "https://m/cuda/dists/bookworm/extra/binary-amd64"]),
    ],
)  # fmt: skip
def test_where_the_indexes_are(repository: Repository, indexes: list[str]) -> None:
    assert repository.indexes("amd64") == indexes


def test_the_role_s_template_describes_it_as_the_check_does() -> None:
    import jinja2

    root = Path(__file__).parents[4]
    template = jinja2.Template((root / "roles/nvidia_driver/templates/sources.j2").read_text(), trim_blocks=True)
    for repository in (Repository("https://m/cuda"), Repository("https://m/cuda", "bookworm", ("main", "extra"))):
        text = template.render(
            __nvidia_driver_repository_url=repository.url, __nvidia_driver_keyring="/k.asc",
            nvidia_driver_repository_suite=repository.suite, nvidia_driver_repository_components=repository.components,
        )  # fmt: skip
        assert text.partition("\n")[2].strip() == repository.description("/k.asc").strip()


def test_secrets_are_in_no_representation() -> None:
    asked = Declared(VERSION, access=Access("gpu", PASSWORD, "C", "THEKEY"))
    assert PASSWORD not in repr(asked)
    assert "THEKEY" not in repr(asked)
    assert os.environ.get("PASSWORD") is None
