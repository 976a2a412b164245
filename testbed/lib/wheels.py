"""The wheelhouse: every wheel of the CPU lock, and the testbed's own distributions made into wheels.

Wheel format: the binary distribution format of packaging.python.org, written here so that no build back end is needed.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from testbed.lib import shell
from testbed.lib.errors import TestbedError
from testbed.lib.layout import CACHE, ROOT

LOCK = ROOT.parent / "roles" / "serving_runtime" / "files" / "locks" / "cpu.txt"
DISTRIBUTIONS = (ROOT / "runtime" / "vllm", ROOT / "runtime" / "lockstep-testbed-platform")
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NODE_PYTHON = "3.11"
NODE_GLIBC = 36  # Debian 12 has glibc 2.36
ZIP_TIME = (2026, 1, 1, 0, 0, 0)


def wheel_name(project: Mapping[str, str]) -> str:
    """File name of a pure wheel for a pyproject's [project]."""
    return f"{project['name'].replace('-', '_')}-{project['version']}-py3-none-any.whl"


def build_wheel(source: Path, target: Path) -> Path:
    """Make a wheel of pyproject.toml and src/; return its path below ``target``."""
    described = tomllib.loads((source / "pyproject.toml").read_text())
    project = described["project"]
    stem = f"{project['name'].replace('-', '_')}-{project['version']}"
    files: dict[str, bytes] = {}
    for path in sorted((source / "src").rglob("*.py")):
        files[str(path.relative_to(source / "src"))] = path.read_bytes()
    if pth := described.get("tool", {}).get("lockstep-testbed", {}).get("pth"):
        files[f"{project['name'].replace('-', '_')}.pth"] = (pth + "\n").encode()
    info = f"{stem}.dist-info"
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\nSummary: {project['description']}\n"
        f"Requires-Python: {project['requires-python']}\n"
    ).encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: lockstep-testbed\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    if points := project.get("entry-points"):
        lines = [
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
            for group, entries in points.items()
        ]
        files[f"{info}/entry_points.txt"] = "\n".join(lines).encode()
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    wheel = target / wheel_name(project)
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, ZIP_TIME)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return wheel


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def find_uv() -> Path:
    """uv of the project's environment, of this machine, or one that we install into our cache."""
    own = CACHE / "tools" / "bin" / "uv"
    for candidate in (ROOT.parent / ".venv" / "bin" / "uv", shutil.which("uv"), own):
        if candidate and Path(candidate).exists():
            return Path(candidate)
    shell.run(
        ["apt-get", "install", "--yes", "--no-install-recommends", "python3-venv"],
        environment={"DEBIAN_FRONTEND": "noninteractive"},
    )
    shell.run(["/usr/bin/python3", "-m", "venv", CACHE / "tools"])
    shell.run([CACHE / "tools" / "bin" / "pip", "install", "--quiet", "uv"])
    return own


def find_links(environment: Mapping[str, str]) -> str:
    """Folder or page where torch's CPU wheel lies, from PIP_FIND_LINKS or UV_FIND_LINKS; '' when neither is set."""
    return environment.get("PIP_FIND_LINKS") or environment.get("UV_FIND_LINKS") or ""


def platforms() -> list[str]:
    """--platform arguments: what a Debian 12 node can load."""
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(5, NODE_GLIBC + 1)]
    tags += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    return [option for tag in tags for option in ("--platform", tag)]


def download(target: Path) -> None:
    """Fetch every wheel of the lock, checked against its hashes."""
    if not LOCK.exists():
        raise TestbedError(f"{LOCK} is missing; see testbed/runtime/README.md")
    environment = CACHE / "pip"
    if not (environment / "bin" / "pip").exists():
        shell.run([find_uv(), "venv", "--quiet", "--seed", "--clear", "--python", sys.executable, environment])
    pip = environment / "bin" / "pip"
    links = find_links(os.environ)
    where = ["--find-links", links] if links else []
    if not links and "find-links" not in shell.run([pip, "config", "list"]).stdout:
        where = ["--extra-index-url", PYTORCH_CPU_INDEX]
    shell.run(
        [pip, "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version", NODE_PYTHON,
         *platforms(), *where, "--requirement", LOCK, "--dest", target],
    )  # fmt: skip


def train_model(wheelhouse: Path, target: Path) -> None:
    """Train the tiny model in an environment that is thrown away afterwards."""
    uv = find_uv()
    environment = CACHE / "trainer"
    shell.run([uv, "venv", "--quiet", "--clear", "--python", NODE_PYTHON, environment])
    shell.run(
        [uv, "pip", "install", "--quiet", "--python", environment, "--no-index", "--find-links", wheelhouse, "--no-config",
         "torch", "transformers"],
    )  # fmt: skip
    fresh = target.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    # One thread: the matrices are so small that two spend their time waiting for each other.
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    shell.run([environment / "bin" / "python", ROOT / "model" / "train.py", fresh], environment=quiet, timeout=900)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    shutil.rmtree(environment)
