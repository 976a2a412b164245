"""The units of Ray and of the engine start under their condition alone, as the user who serves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ansible_collections.lockstep.vllm.plugins.module_utils.admission import condition

ROLES = Path(__file__).parents[2] / "roles"
UNITS = [
    ("ray_node/templates/lockstep-ray.service.j2", "host"),
    ("vllm_server/templates/lockstep-vllm.service.j2", "replica"),
]


ISOLATED = ["+/usr/bin/python3", "-I", "-S", "-B", "/opt/lockstep/lib/lockstep/core/isolated.py"]
"""As root, whatever the unit's user; see core/isolated.py."""


def setting(unit: str, name: str) -> list[str]:
    """Every value that a unit gives a setting, in order."""
    return re.findall(rf"^{name}=(.*)$", (ROLES / unit).read_text(), re.MULTILINE)


@pytest.mark.parametrize(("unit", "kind"), UNITS)
def test_no_unit_starts_without_its_stamp(unit: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = setting(unit, "ExecCondition")
    *program, asked = command.split()
    assert program == [*ISOLATED, "lockstep.admission.condition"]
    seen: list[str] = []
    monkeypatch.setattr(condition, "decide_here", lambda of: seen.append(of) or condition.Decision(False, "no stamp"))
    assert condition.main([asked]) == 1
    assert seen == [kind]


@pytest.mark.parametrize(("unit", "kind"), UNITS)
def test_a_refusal_is_no_success(unit: str, kind: str) -> None:
    """systemd takes a condition's status for consent where the unit calls that status a success."""
    assert "1" not in " ".join(setting(unit, "SuccessExitStatus")).split()


@pytest.mark.parametrize(("unit", "kind"), UNITS)
def test_nothing_runs_as_root(unit: str, kind: str) -> None:
    assert setting(unit, "User") == ["lockstep"]


MODEL, CACHE = "/mnt/nfs/llama", "/srv/data/models"


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        pytest.param({"vllm_server_model": MODEL}, [MODEL], id="a model on NFS"),
        pytest.param({"vllm_server_model": "owner/name"}, [], id="a model of a hub, below the user's state"),
        pytest.param(
            {"vllm_server_model": "owner/name", "vllm_server_cache": CACHE}, [CACHE], id="a cache on a data disk"
        ),
        pytest.param({"vllm_server_model": MODEL, "vllm_server_cache": CACHE}, [MODEL, CACHE], id="both"),
    ],
)
@pytest.mark.parametrize(("unit", "kind"), UNITS)
def test_it_waits_at_boot_for_the_file_systems_of_model_and_cache(
    unit: str, kind: str, given: dict[str, str], paths: list[str]
) -> None:
    """Of every host: a rank reads the model too."""
    role, loader = unit.partition("/")[0], DataLoader()
    of_role: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        of_role |= loader.load_from_file(str(ROLES / role / part / "main.yml"), trusted_as_template=True)
    mounts = Templar(loader=loader, variables={**of_role, **given}).template(of_role[f"__{role}_mounts"])
    assert mounts == paths
    loop = re.search(r"^\{% for .*?^\{% endfor %\}\n", (ROLES / unit).read_text(), re.MULTILINE | re.DOTALL)
    assert loop
    written = jinja2.Template(loop[0], trim_blocks=True).render({f"__{role}_mounts": mounts})
    assert written.splitlines() == [f"RequiresMountsFor={path}" for path in paths]


FILTER = "gpu_host/templates/lockstep-filter.service.j2"
REQUIREMENT = "gpu_host/templates/require-filter.conf.j2"


def test_ray_and_vllm_do_not_start_without_the_packet_filter() -> None:
    assert setting(REQUIREMENT, "Requires") == setting(REQUIREMENT, "After") == ["lockstep-filter.service"]
    required_by = yaml.safe_load((ROLES / "gpu_host/vars/main.yml").read_text())["__gpu_host_filter_requirements"]
    units = [Path(unit).name.removesuffix(".j2") for unit, _ in UNITS]
    assert required_by == [f"/etc/systemd/system/{unit}.d/filter.conf" for unit in units]


def test_a_restart_of_nftables_does_not_reach_ray_by_way_of_the_filter() -> None:
    """Ray requires the filter: what stops or restarts that one stops Ray. The watch loads the rules again."""
    for name in ("PartOf", "BindsTo", "Requires", "StopPropagatedFrom"):
        assert setting(FILTER, name) == []
    assert setting(FILTER, "ReloadPropagatedFrom") == ["nftables.service"]
    assert setting(FILTER, "ExecReload") == setting(FILTER, "ExecStart")


ROOT = ROLES.parent
ENTRY_POINT = re.compile(r"(?:-m|isolated\.py)(?:,|'|\"|\s)+\s*['\"]?(lockstep(?!\.vllm\.)(?:\.[a-z_]\w*)+)")


def entry_points() -> list[tuple[str, str]]:
    """Every ``-m lockstep.…`` or ``isolated.py lockstep.…`` that is typed, run by a unit or printed: its file, and the module."""
    files = [
        path
        for folder in ("roles", "playbooks", "molecule", "docs", "plugins", "testbed", "tests/e2e", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".yml", ".j2", ".py", ".md", ".sh", ".service", "") and path.is_file()
    ]
    return sorted(
        {
            (str(path.relative_to(ROOT)), name)
            for path in files
            for name in ENTRY_POINT.findall(path.read_text(encoding="utf-8", errors="replace"))
        }
    )


@pytest.mark.parametrize(("file", "name"), entry_points())
def test_every_entry_point_that_is_named_exists(file: str, name: str) -> None:
    path = (ROOT / "plugins" / "module_utils" / Path(*name.split(".")[1:])).with_suffix(".py")
    assert path.is_file(), f"{file} runs {name}"
    assert '__name__ == "__main__"' in path.read_text(encoding="utf-8"), f"{name} has no entry point"


def test_a_host_that_leaves_loses_every_unit_and_drop_in_of_ours_and_none_of_another() -> None:
    """By name: a pattern like lockstep-* takes the testbed's own along."""
    named = yaml.safe_load((ROLES / "gpu_host/vars/main.yml").read_text())
    stopped = named["__gpu_host_removed_units"]
    beside = re.findall(r"'([^']+)'", named["__gpu_host_removed_unit_files"])
    units = {
        path.name.removesuffix(".j2") for path in ROLES.glob("*/templates/lockstep-*.j2") if ".prom" not in path.name
    }
    drop_ins = {
        Path(path).parent.name
        for role, name in (
            ("gpu_host", "__gpu_host_filter_requirements"),
            ("ray_node", "__ray_node_tunnel_requirements"),
        )
        for path in yaml.safe_load((ROLES / role / "vars/main.yml").read_text())[name]
    }
    assert {*stopped, *beside} == units | drop_ins
    assert {unit for unit in units if "@" not in unit} == set(stopped)


def test_a_host_that_leaves_loses_every_folder_of_ours_below_run() -> None:
    removed = yaml.safe_load((ROLES / "gpu_host/vars/main.yml").read_text())["__gpu_host_removed_files"]
    library = ROLES.parent / "plugins/module_utils"
    named = {
        folder
        for path in library.rglob("*.py")
        for folder in re.findall(r"/run/lockstep[a-z-]*", path.read_text("utf-8"))
    }
    assert len(named) > 3
    assert named <= {*removed}
