"""Which tests an edit calls for."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tests.unit.tools.scripts import ROOT, script

quick = script("quick")


@pytest.mark.parametrize(
    ("changed", "tests"),
    [
        (
            "plugins/module_utils/engine/ladder.py",
            ["tests/unit/module_utils/engine/test_ladder.py", "tests/unit/module_utils/engine/test_ladder_rungs.py"],
        ),
        ("plugins/module_utils/haproxy_tls.py", ["tests/unit/module_utils/test_haproxy_tls.py"]),
        ("testbed/lib/faults.py", ["tests/unit/testbed/test_faults.py"]),
        ("tests/unit/module_utils/engine/test_ladder.py", ["tests/unit/module_utils/engine/test_ladder.py"]),
        ("tests/unit/module_utils/gates/rank_reports.py", ["tests/unit/module_utils/gates"]),
        ("tests/unit/fixtures/proc/README.md", []),
        ("tests/e2e/traffic.py", ["tests/unit/e2e"]),
        ("inventories/examples/one_host/hosts.yml", ["tests/unit/test_examples.py"]),
        ("uv.lock", []),
    ],
)
def test_tests_of(changed: str, tests: list[str]) -> None:
    assert quick.tests_of(changed) == tests


def test_a_file_without_a_mirror_calls_for_the_tests_that_import_it() -> None:
    found = quick.importers(PurePosixPath("plugins/module_utils/core/records.py"))
    assert "tests/unit/module_utils/core/test_manifests.py" not in found
    assert "tests/unit/module_utils/rollout/test_lock.py" in found
    assert quick.tests_of("plugins/module_utils/gates/ranks/__init__.py") == quick.importers(
        PurePosixPath("plugins/module_utils/gates/ranks/__init__.py")
    )


def test_what_changed_is_asked_of_git() -> None:
    assert quick.changed_files("HEAD") == sorted(quick.changed_files("HEAD"))
    assert all((ROOT / name).is_file() for name in quick.changed_files("HEAD"))


def test_linters_come_before_tests_and_yaml_is_linted_where_it_changed() -> None:
    assert [command[0] for command in quick.commands(["data/xids.yml"])][:4] == ["ruff", "ruff", "yamllint", "mypy"]
    assert [command[0] for command in quick.commands([])] == ["ruff", "ruff", "mypy"]
