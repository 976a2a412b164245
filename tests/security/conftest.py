"""Two users: root, who runs the tests, and one without rights, who stands for whoever serves (``lockstep``).

Everything here is real: files, links and FIFOs planted by another user, interpreters that are started, gates' ranks that run.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2
import pytest
import yaml

from tests.machine import PATIENCE

ROOT = Path(__file__).parents[2]
USER = pwd.getpwnam("nobody")
PYTHON = "/usr/bin/python3"
"""The interpreter of hosts; the tests' own lies where another user may not be allowed to look."""
SECRET = "only-root-may-read-this"

Plant = Callable[..., None]


def unit_text(unit: Path) -> str:
    """A unit as the role writes it by its defaults, with what its template includes; what has no default is left empty."""
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(unit.parent), trim_blocks=True)
    defaults = unit.parent.parent / "defaults/main.yml"
    return templates.get_template(unit.name).render(yaml.safe_load(defaults.read_text()) if defaults.exists() else {})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root, to be two users"))


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of root into which everybody may look."""
    folder = Path(tempfile.mkdtemp(prefix="lockstep-security-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def secret(place: Path) -> Path:
    """A file that root alone reads."""
    path = place / "secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    return path


@pytest.fixture
def theirs(place: Path) -> Path:
    """A folder of the user, as /run/lockstep and /var/lib/lockstep/engine are."""
    folder = place / "theirs"
    folder.mkdir()
    os.chown(folder, USER.pw_uid, USER.pw_gid)
    return folder


def as_user(code: str, *arguments: object, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Run Python code as the user; its ``sys.argv[1:]`` are ``arguments``."""
    return subprocess.run(
        [PYTHON, "-I", "-c", code, *map(str, arguments)],
        user=USER.pw_uid,
        group=USER.pw_gid,
        extra_groups=[],
        cwd="/",
        env={},
        text=True,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


PLANT = """
import os, socket, sys
path, kind, content = sys.argv[1:4]
if kind == "link": os.symlink(content, path)
elif kind == "fifo": os.mkfifo(path)
elif kind == "folder": os.mkdir(path)
elif kind == "socket": socket.socket(socket.AF_UNIX).bind(path)
else: open(path, "w", errors="surrogatepass").write(content * int(sys.argv[4]))
"""


@pytest.fixture
def plant() -> Plant:
    """Have the user put something somewhere: a ``link``, ``fifo``, ``folder``, ``socket``, or a ``file`` of some text, repeated."""

    def planted(path: Path, kind: str, content: object = "", times: int = 1) -> None:
        done = as_user(PLANT, path, kind, content, times)
        assert done.returncode == 0, done.stderr

    return planted


@pytest.fixture
def library(place: Path) -> Path:
    """The library as hosts have it: a folder to import the package ``lockstep`` from."""
    shutil.copytree(ROOT / "plugins/module_utils", place / "lib/lockstep", ignore=shutil.ignore_patterns("__pycache__"))
    return place / "lib"
