"""tools/mirror-list: a driver and all below it, listed by the real apt; and an apt that is content with what wget made of the list."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.unit.module_utils.driver import aptlab

from .scripts import ROOT, script

mirror_list = script("mirror-list")
apt_root = mirror_list.apt_root
DRIVER = "535.309.01"
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("apt-get", "gpg", "wget"))), reason="wants apt-get, gpg and wget"
)

RELEASE = """Origin: Debian
Suite: oldstable
Acquire-By-Hash: yes
MD5Sum:
 0ed6d4c8891eb86358b94bb35d9e4da4  1484322 contrib/Contents-all
SHA256:
 3957f28db16e3f28c7b34ae84f1c929c567de6970f3f1b95dac9b498dd80fe63   738242 contrib/Contents-all
 9e0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5  8788888 main/binary-amd64/Packages.xz
 aa0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5 18788888 main/binary-amd64/Packages.gz
"""


@pytest.mark.parametrize(
    ("key", "name"),
    [("main/binary-amd64/Packages", "main/binary-amd64/Packages.xz"), ("contrib/binary-amd64/Packages", None)],
)
def test_index_is_taken_as_apt_reads_it(key: str, name: str | None) -> None:
    assert mirror_list.index_name(key, RELEASE) == name


PRINTED = """'http://archive.example.org/debian-security/pool/updates/main/p/python3.11/python3.11_3.11.2-6%2bdeb12u9_amd64.deb' python3.11_3.11.2-6+deb12u9_amd64.deb 573720 SHA256:24a1
'http://archive.example.org/debian/pool/main/g/gcc-defaults/g++_12.2.0-3_amd64.deb' g++_4%3a12.2.0-3_amd64.deb 1356 SHA256:57e9
"""


def test_what_apt_prints_is_read() -> None:
    gxx, python = mirror_list.fetched(PRINTED)
    assert (gxx.name, gxx.version, gxx.size, gxx.checksum) == ("g++", "4:12.2.0-3", 1356, "SHA256:57e9")
    assert (python.name, python.version) == ("python3.11", "3.11.2-6+deb12u9")
    assert mirror_list.place(python.url).endswith("/python3.11/python3.11_3.11.2-6+deb12u9_amd64.deb")


def test_every_package_that_a_role_installs_is_listed() -> None:
    named: set[str] = set()
    for path in ROOT.glob("roles/*/tasks/*.yml"):
        for block in re.findall(r"ansible\.builtin\.apt:\n(?: {4,}.*\n)+", path.read_text()):
            wanted = re.search(r"name: (.+)", block)
            assert wanted, path
            found = re.findall(r"'([a-z-]+)'" if "{{" in wanted[1] else r"[a-z][a-z0-9-]*", wanted[1])
            named |= set(found)
    assert {"nftables", "haproxy", "wireguard-tools"} <= named
    listed = mirror_list.system_packages("python3.11", "Debian", "amd64", ["6.1.0-30-amd64"])
    assert named - {"wireguard-go"} <= {*listed}  # where the kernel has no WireGuard: --also wireguard-go
    assert {"python3.11", "python3.11-dev", "g++", "libnuma1", "linux-headers-6.1.0-30-amd64"} <= {*listed}


class Archive(NamedTuple):
    """Repositories below a folder that a web server offers."""

    address: str
    sources: Path
    key: aptlab.Key


@contextlib.contextmanager
def offered(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def repository(folder: Path, key: aptlab.Key, names: dict[str, str], depends: dict[str, str]) -> None:
    """A flat repository whose files are there, with their real checksums."""
    folder.mkdir(parents=True)
    paragraphs = []
    for name, version in names.items():
        file = folder / f"{name}_{version.rpartition(':')[2]}_amd64.deb"
        file.write_bytes(f"{name} {version}".encode())
        lines = [f"Package: {name}", f"Version: {version}", "Architecture: amd64", "Maintainer: x", f"Filename: ./{file.name}",
                 f"Size: {file.stat().st_size}", f"SHA256: {hashlib.sha256(file.read_bytes()).hexdigest()}", "Description: x"]  # fmt: skip
        paragraphs.append("\n".join([*lines, *([f"Depends: {depends[name]}"] if name in depends else []), "", ""]))
    aptlab.publish(folder, "".join(paragraphs), key)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Stand-ins for the distribution's archive, and for NVIDIA's repository with two drivers in it."""
    key = aptlab.Key.make(tmp_path / "gnupg")
    system = mirror_list.system_packages("python3", "Debian", "amd64", ())
    repository(
        tmp_path / "origin/debian",
        key,
        {**dict.fromkeys([*system, "dkms", "gcc"], "2:1.0+b1"), "unwanted": "1"},
        {"dkms": "gcc"},
    )
    driver = mirror_list.packages.package_set(
        DRIVER, source="nvidia", flavor="open", distribution="Debian", fabric_manager=True
    )
    names = {each.names[-1]: f"{each.version or DRIVER}-1" for each in driver}
    repository(
        tmp_path / "origin/nvidia", key, {**names, "nvidia-newer": "600.1.1-1"}, {"nvidia-kernel-open-dkms": "dkms"}
    )
    shutil.copyfile(key.public, tmp_path / "origin/nvidia/key.gpg")
    with offered(tmp_path / "origin") as address:
        sources = tmp_path / "sources.list"
        sources.write_text(f"deb [signed-by={key.public}] {address}/debian/ /\n")
        yield Archive(address, sources, key)
    key.close()


def fingerprint(key: aptlab.Key) -> str:
    shown = subprocess.run(
        ["gpg", "--homedir", key.home, "--list-keys", "--with-colons"], capture_output=True, text=True
    )
    return next(line.split(":")[9] for line in shown.stdout.splitlines() if line.startswith("fpr"))


def arguments(archive: Archive, folder: Path) -> list[str]:
    return [str(folder), "--driver", DRIVER, "--distribution", "debian:12", "--sources", str(archive.sources),
            "--source", "mirror", "--repository", f"{archive.address}/nvidia/", "--keyring", f"{archive.address}/nvidia/key.gpg",
            "--fingerprint", fingerprint(archive.key), "--fabric-manager"]  # fmt: skip


def test_a_mirror_made_of_the_list_is_all_that_apt_needs(archive: Archive, tmp_path: Path) -> None:
    made = tmp_path / "list"
    assert mirror_list.main(arguments(archive, made)) == 0
    rows = [line.split("\t") for line in (made / "packages.tsv").read_text().splitlines()]
    listed = {name: version for name, version, *_ in rows}
    assert listed["nvidia-kernel-open-dkms"] == f"{DRIVER}-1"
    assert listed["gcc"] == "2:1.0+b1", "what the driver's packages need, too"
    assert not {"unwanted", "nvidia-newer"} & listed.keys()
    assert "gcc (= 2:1.0+b1)" in (made / "aptly.filter").read_text()
    assert "gcc\tinstall\n" in (made / "reprepro.list").read_text()
    copy = tmp_path / "mirror"
    copy.mkdir()
    subprocess.run(["wget", "-q", "--force-directories", f"--input-file={made}/urls.txt"], cwd=copy, check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", made / "SHA256SUMS"], cwd=copy, check=True)
    (place,) = copy.iterdir()
    host = tmp_path / "host"
    mirror_list.stage(host, archive.sources, None)
    (host / "etc/apt/sources.list").write_text(
        "".join(f"deb [signed-by={archive.key.public}] file://{place}/{name}/ /\n" for name in ("debian", "nvidia"))
    )
    with apt_root.throw_away(root=host, below=tmp_path) as apt:
        assert apt.apt_get(["-o", "APT::Update::Error-Mode=any", "update"], 60).ok
        wanted = [f"{name}={version}" for name, version in listed.items()]
        answer = apt.run(["apt-get", "-y", "-qq", "--download-only", "--no-install-recommends", "install", *wanted], 60)
        assert answer.ok, answer.stderr


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--driver", "580.95.05", "driver 580.95.05 is not in the repository"),
        ("--fingerprint", "0" * 40, "compare both with what its publisher says"),
        ("--flavor", "proprietary", "nvidia-kernel-dkms"),
        ("--also", "no-such-package", "no-such-package"),
    ],
)
def test_what_is_not_there_is_said_and_nothing_is_listed(
    archive: Archive, tmp_path: Path, option: str, value: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(archive, tmp_path / "list")
    assert mirror_list.main([*given, option, value]) == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "list").exists()


def test_what_a_fresh_host_has_is_left_out(archive: Archive, tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(aptlab.paragraph("gcc", "2:1.0+b1", status="install ok installed"))
    assert mirror_list.main([*arguments(archive, tmp_path / "list"), "--installed", str(status)]) == 0
    listed = (tmp_path / "list/reprepro.list").read_text()
    assert "dkms\tinstall" in listed
    assert "gcc\tinstall" not in listed
