"""tools/wheelhouse: what a lock asks for on which Python, and a real installation from what it made, with no index."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import install
from testbed.lib.wheels import build_wheel
from tests.machine import PATIENCE

from .scripts import ROOT, script

wheelhouse = script("wheelhouse")
CUDA = (ROOT / "roles/serving_runtime/files/locks/cuda.txt").read_text()
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("python", "numpy", "networkx"),
    [("3.11", "2.3.5", "3.6.1"), ("3.12", "2.3.5", "3.7"), ("3.13", "2.4.6", "3.7"), ("3.14", "2.4.6", "3.7")],
)
def test_markers_are_the_hosts_not_the_controllers(python: str, numpy: str, networkx: str) -> None:
    target = wheelhouse.Target(python, "x86_64-manylinux_2_35")
    pins = [line.split(" ")[0] for line in wheelhouse.of_target(wheelhouse.requirements(CUDA), target)]
    assert [pin for pin in pins if pin.startswith(("numpy==", "networkx=="))] == [
        f"networkx=={networkx}",
        f"numpy=={numpy}",
    ]
    assert len(pins) == len({pin.partition("==")[0] for pin in pins})


def test_lock_is_read_with_all_its_hashes() -> None:
    lines = wheelhouse.requirements(CUDA)
    assert sum(line.count("--hash=sha256:") for line in lines) == CUDA.count("--hash=sha256:")
    assert len(lines) == sum("==" in line and not line.startswith((" ", "#")) for line in CUDA.splitlines())


def test_platforms_reach_down_to_the_oldest_glibc() -> None:
    options = wheelhouse.Target("3.12", "aarch64-manylinux_2_28").options
    assert {"manylinux_2_28_aarch64", "manylinux_2_5_aarch64", "manylinux2014_aarch64", "3.12"} <= {*options}
    assert "manylinux_2_29_aarch64" not in options


WHEELS = {"here-1.0-py3-none-any.whl": "aa", "Two_Words-2.1-cp312-cp312-manylinux_2_28_x86_64.whl": "bb"}


@pytest.mark.parametrize(
    ("line", "checked", "lacks"),
    [
        ("here==1.0 --hash=sha256:aa --hash=sha256:cc", True, False),
        ("two.words==2.1 --hash=sha256:bb", True, False),
        ("here==1.0 --hash=sha256:cc", True, True),  # another build than the lock's
        ("here==1.0", False, False),  # a lock without hashes
        ("here==1.1 --hash=sha256:aa", True, True),
        ("absent==1.0", False, True),
    ],
)
def test_what_is_missing_is_named(line: str, checked: bool, lacks: bool) -> None:
    assert wheelhouse.missing([line], WHEELS, checked) == ([line.split(" --")[0]] if lacks else [])


def project(folder: Path, name: str, version: str) -> Path:
    package = folder / name
    (package / "src" / name).mkdir(parents=True)
    (package / "src" / name / "__init__.py").write_text(f"version = {version!r}\n")
    (package / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "{version}"\ndescription = "x"\nrequires-python = ">=3.9"\n'
    )
    return package


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock of two packages; the only place that has them is a folder that pip is configured with."""
    origin = tmp_path / "origin"
    origin.mkdir()
    made = [build_wheel(project(tmp_path, name, "1.2"), origin) for name in ("alpha", "beta")]
    path = tmp_path / "own.txt"
    digests = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in made]
    path.write_text(
        f"# made by hand\nalpha==1.2 ; python_version >= '3.9' \\\n    --hash=sha256:{digests[0]}\n    # via beta\n"
        f"beta==1.2 \\\n    --hash=sha256:{digests[1]} \\\n    --hash=sha256:{'0' * 64}\n"
        f"gamma==9 ; python_version < '3.9' --hash=sha256:{'0' * 64}\n"
    )
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_FIND_LINKS", str(origin))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return path


@contextlib.contextmanager
def offered(folder: Path) -> Iterator[str]:
    """The folder at an address, by the plainest web server there is."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("by_address", [False, True], ids=["folder", "address"])
def test_hosts_install_from_it_without_an_index(
    lock: Path, tmp_path: Path, by_address: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the very commands of serving_runtime, once the place that the wheels came from is gone."""
    made = tmp_path / "house"
    plugin = build_wheel(project(tmp_path, "plugin", "3"), tmp_path / "origin")
    extra = f"plugin==3 --hash=sha256:{hashlib.sha256(plugin.read_bytes()).hexdigest()}"
    given = [str(made), "--lock", str(lock), "--python", PYTHON, "--platform", "x86_64-manylinux_2_28", "--also", extra]
    assert wheelhouse.main(given) == 0
    assert wheelhouse.main(given) == 0, "as often as you like"
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=made, check=True)
    for wheel in (tmp_path / "origin").iterdir():
        wheel.unlink()
    with offered(made) as address:
        host = install.Environment(
            lock=made / "locks/own.txt",
            extra=(extra,),
            python=sys.executable,
            wheelhouse=address if by_address else str(made),
            uv=wheelhouse.UV,
        )
        folder = tmp_path / "environment"
        for command in install.commands(host, host.lock.read_text(), folder, tmp_path / "cache"):
            done = subprocess.run(
                command,
                env={**os.environ, **install.sources(host)},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            if command[1] == "venv":
                (folder / install.EXTRA).write_text(f"{extra}\n")
    shown = subprocess.run([folder / "bin/python", "-c", "import alpha, beta, plugin; print(alpha.version, beta.version, plugin.version)"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    assert shown.stdout == "1.2 1.2 3\n"


def test_a_wheel_that_is_nowhere_is_no_success(lock: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "origin/beta-1.2-py3-none-any.whl").unlink()
    assert wheelhouse.main([str(tmp_path / "house"), "--lock", str(lock), "--python", PYTHON]) == 1
    said = capfd.readouterr().err
    assert "beta==1.2" in said
    assert "is not complete" in said


@pytest.mark.parametrize("given", [["--lock", "absent"], ["--lock", str(ROOT / "pyproject.toml")]])
def test_what_cannot_be_meant_is_refused(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert wheelhouse.main([str(tmp_path / "house"), *given]) == 1
    assert "tools/wheelhouse" in capsys.readouterr().err
    assert not (tmp_path / "house").exists()


def test_python_of_its_own_is_checked_by_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not the one uv knows by its checksum is refused, wherever it came from."""
    listed = subprocess.run([wheelhouse.UV, "python", "list", "3.12", "--only-downloads", "--no-config", "--output-format", "json"],
                            check=True, capture_output=True, text=True).stdout  # fmt: skip
    url = next(row["url"] for row in wheelhouse.json.loads(listed) if row["implementation"] == "cpython")
    release, name = url.split("/")[-2:]
    false = tmp_path / "mirror" / release / wheelhouse.urllib.parse.unquote(name)
    false.parent.mkdir(parents=True)
    false.write_bytes(b"not a Python")
    monkeypatch.setenv("UV_PYTHON_INSTALL_MIRROR", (tmp_path / "mirror").as_uri())
    with pytest.raises(subprocess.CalledProcessError):
        wheelhouse.managed_python("3.12", tmp_path / "house")
    assert list((tmp_path / "house").rglob("*.tar.gz")) == [], "it would be taken for whole the next time"
