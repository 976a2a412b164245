"""What root installs on a host: nothing that its lock does not name by hash, whoever holds the mirror. Real uv, no network."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.server
import io
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible.module_utils.testing import patch_module_args

from ansible_collections.lockstep.vllm.plugins.lookup import controller_uv
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import install as runtime_install
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime.install import Environment, InstallError
from ansible_collections.lockstep.vllm.plugins.modules import serving_runtime

UV = Path(sys.executable).with_name("uv")
TOOL = """
import pathlib
pathlib.Path({mark!r}).write_text("ran")
def build_wheel(folder, settings=None, metadata=None):
    raise SystemExit("it ran")
"""


def sdist(folder: Path, name: str) -> Path:
    """A source distribution whose build back end is ``buildtool``."""
    path = folder / f"{name}-1.0.tar.gz"
    backend = '[build-system]\nrequires = ["buildtool"]\nbuild-backend = "buildtool"\n'
    project = f'[project]\nname = "{name}"\nversion = "1.0"\n'
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    with tarfile.open(path, "w:gz") as archive:
        for inside, text in (("pyproject.toml", backend + project), ("PKG-INFO", about)):
            data = text.encode()
            member = tarfile.TarInfo(f"{name}-1.0/{inside}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def wheel(folder: Path, name: str, code: str) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def environment(tmp_path: Path, lock: str, **changed: object) -> Environment:
    (tmp_path / "lock.txt").write_text(lock)
    given = {"lock": tmp_path / "lock.txt", "python": sys.executable, "wheelhouse": str(tmp_path / "wheels"), "uv": UV}
    return Environment(**{**given, **changed})  # type: ignore[arg-type]


def test_a_source_distribution_is_not_built_whatever_its_hash(tmp_path: Path) -> None:
    """Its build tool would be fetched without any hash, and run as root."""
    wheels, mark = tmp_path / "wheels", tmp_path / "mark"
    wheels.mkdir()
    digest = hashlib.sha256(sdist(wheels, "innocent").read_bytes()).hexdigest()
    wheel(wheels, "buildtool", TOOL.format(mark=str(mark)))
    with pytest.raises(InstallError):
        runtime_install.install(
            environment(tmp_path, f"innocent==1.0 --hash=sha256:{digest}\n"), root=tmp_path / "root"
        )
    assert not mark.exists(), "code of whoever holds the mirror ran"


LOCKED = f"torch==2.13.0 --hash=sha256:{'0' * 64}\n"


@pytest.mark.parametrize(
    ("lock", "changed", "reason"),
    [
        (LOCKED, {"extra": ("plugin==1.0",)}, "plugin==1.0 without a hash"),
        (
            "torch==2.13.0\n",
            {"wheelhouse": "http://mirror.example/wheels/"},
            "no hashes, and packages would come over http",
        ),
        ("torch==2.13.0\n", {"wheelhouse": None, "index_url": "http://index.example/"}, "no hashes, and packages"),
    ],
)
def test_what_is_not_checked_is_refused(tmp_path: Path, lock: str, changed: dict[str, object], reason: str) -> None:
    with pytest.raises(InstallError, match=reason):
        runtime_install.install(environment(tmp_path, lock, **changed), root=tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_the_uv_that_travels_is_the_one_that_the_lock_brought(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(controller_uv.checked_uv())
    assert path.name == "uv"
    monkeypatch.setattr(controller_uv, "_sha256", lambda _path: b"another")
    with pytest.raises(AnsibleError, match=r"is not the file that the package uv \S+ brought.*Next: "):
        controller_uv.checked_uv()


@pytest.mark.parametrize(
    "changed",
    [{"wheelhouse": "https://me:sesame@mirror/"}, {"wheelhouse": None, "index_url": "https://me:sesame@index/"}],
)
def test_credentials_of_an_index_are_in_no_argument(tmp_path: Path, changed: dict[str, object]) -> None:
    made = environment(tmp_path, LOCKED, extra=(LOCKED.strip(),), **changed)
    for argv in runtime_install.commands(made, LOCKED, tmp_path, tmp_path):
        assert not [word for word in argv if "sesame" in word]
    assert "sesame" in "".join(runtime_install.sources(made).values())


class Mirror(http.server.SimpleHTTPRequestHandler):
    """A folder for whoever has the password."""

    def send_head(self) -> io.BytesIO | None:  # type: ignore[override]
        if self.headers["Authorization"] == "Basic " + base64.b64encode(b"me:sesame").decode():
            return super().send_head()  # type: ignore[return-value]
        self.send_response(401)
        self.send_header("WWW-Authenticate", "Basic")
        self.end_headers()
        return None

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def mirror(folder: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Mirror, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:sesame@127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_mirror_s_password_stays_in_no_file_and_in_no_error(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    lock = ""
    for name in ("torch", "ray", "vllm"):
        wheel(wheels, name, "")
        digest = hashlib.sha256((wheels / f"{name}-1.0-py3-none-any.whl").read_bytes()).hexdigest()
        lock += f"{name}==1.0 --hash=sha256:{digest}\n"
    root = tmp_path / "root"
    with mirror(wheels) as url:
        done = runtime_install.install(environment(tmp_path, lock, wheelhouse=url), root=root)
        assert done.built
        (wheels / "vllm-1.0-py3-none-any.whl").write_text("another")
        with pytest.raises(InstallError) as changed:
            runtime_install.install(environment(tmp_path, f"{lock}# \nray==1.0\n", wheelhouse=url), root=root)
        with pytest.raises(InstallError) as missing:
            runtime_install.install(
                environment(tmp_path, lock.replace("vllm==1.0", "vllm==2.0"), wheelhouse=url), root=root
            )
    with pytest.raises(InstallError) as away:
        runtime_install.install(
            environment(tmp_path, lock.replace("vllm==1.0", "vllm==3.0"), wheelhouse=url), root=root
        )
    for error in (changed, missing, away):
        assert "sesame" not in f"{error.value} {error.value.stop.as_result()}"
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    assert not [path for path in files if b"sesame" in path.read_bytes()]


@pytest.mark.parametrize("where", ["wheelhouse", "index_url"])
def test_a_mirror_s_password_is_in_no_result(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What the module returns has its arguments, and is shown, kept and sent on."""
    with (
        patch_module_args({"lock": "/nonexistent", where: "https://me:sesame@mirror/wheels/"}),
        pytest.raises(SystemExit),
    ):
        serving_runtime.main()
    said = capsys.readouterr().out
    assert '"failed": true' in said
    assert "sesame" not in said
