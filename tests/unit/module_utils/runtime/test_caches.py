"""Compilers' caches: kept for each serving environment, and no longer than it."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.lockstep.vllm.plugins.module_utils.runtime import caches


def test_each_environment_has_caches_of_its_own_and_loses_them_with_it(tmp_path: Path) -> None:
    runtime, folder = tmp_path / "runtime", tmp_path / "cache"
    for digest in ("1111", "2222"):
        (runtime / digest).mkdir(parents=True)
    for digest in ("0000", "1111", "2222"):
        (folder / digest / "vllm").mkdir(parents=True)
    (runtime / "current").symlink_to("2222")
    caches.prune(runtime / "current", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["1111", "2222"], "1111 is what a rollback goes back to"
    assert caches.environment(runtime / "current", folder) == {
        "VLLM_CACHE_ROOT": f"{folder}/2222/vllm",
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/2222/inductor",
        "TRITON_CACHE_DIR": f"{folder}/2222/triton",
    }


def test_there_may_be_nothing_yet(tmp_path: Path) -> None:
    caches.prune(tmp_path / "runtime" / "current", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
