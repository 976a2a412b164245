"""Which names are ours, and which are meant to be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import known_variables, settings

ROOT = Path(__file__).parents[4]


def test_every_role_is_known() -> None:
    assert sorted(known_variables.ROLES) == sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def test_every_variable_that_the_playbooks_take_is_known() -> None:
    text = "\n".join(path.read_text() for path in sorted((ROOT / "playbooks").rglob("*.yml")))
    used = set(re.findall(r"\b(?:rollout|diagnose|verify|status)_[a-z_]+\b", re.sub(r"lockstep\.vllm\.\w+", "", text)))
    webhook = (ROOT / "plugins/plugin_utils/report/webhook.py").read_text()  # read where events are, by the callback
    used |= set(re.findall(r"\brollout_webhook_[a-z]+\b", webhook))
    assert used - {"verify_host", "verify_replica"} == set(known_variables.of_playbooks())  # less two verbs


@pytest.mark.parametrize(
    ("roles", "names"),
    [
        (
            settings.HOST_ROLES,
            {"gpu_host_interface", "gpu_host_gpus", "nvidia_driver_version", "ray_node_role", "ray_node_token", "vllm_server_model"},
        ),
        (settings.ROUTER_ROLES, set()),
    ],
)  # fmt: skip
def test_required(roles: tuple[str, ...], names: set[str]) -> None:
    assert set(known_variables.required(roles)) == names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("nvidia_driver_verison", "nvidia_driver_version"),
        ("nvidia_driver_versoin", "nvidia_driver_version"),
        ("nvida_driver_version", "nvidia_driver_version"),
        ("nividia_drivre_version", "nvidia_driver_version"),
        ("nvidia-driver-version", "nvidia_driver_version"),
        ("NVIDIA_DRIVER_VERSION", "nvidia_driver_version"),
        ("vllm_server_tensor_paralel_size", "vllm_server_tensor_parallel_size"),
        ("ray_node_rol", "ray_node_role"),
        ("rollout_windows", "rollout_window"),
        ("rollout_ordre", "rollout_order"),
        ("rolout_odrer", "rollout_order"),
        ("rolout_capacity_floor", "rollout_capacity_floor"),
        ("diagnose_distrub", "diagnose_disturb"),
        ("status_fromat", "status_format"),
        ("admission_rdam", "admission_rdma"),
    ],
)
def test_a_near_miss(name: str, meant: str) -> None:
    found = known_variables.unknown(name)
    assert found is not None
    assert (found.meant, found.slip) == (meant, True)
    assert str(found) == f"there is no variable {name}: did you mean {meant}?"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("nvidia_driver_vers", "nvidia_driver_version"),
        ("vllm_server_tensor_parallel", "vllm_server_tensor_parallel_size"),
        ("vllm_server_quantization", None),
        ("gpu_host_rack", None),
        ("rollout_owner", None),
        ("status_page", None),
    ],
)
def test_an_unknown_name_under_a_prefix_of_ours(name: str, meant: str | None) -> None:
    found = known_variables.unknown(name)
    assert found is not None
    assert (found.meant, found.slip) == (meant, False)
    assert str(found).startswith(f"{name} is set, and Lockstep has no such variable: it does nothing")


@pytest.mark.parametrize(
    "name",
    ["ansible_user", "testbed_state", "vault_ray_node_token", "site_driver_version", "lockstep_mode", "__ray_node_ports",
     "nvidia", "version", "", "x" * 300],
)  # fmt: skip
def test_names_of_others(name: str) -> None:
    assert known_variables.unknown(name) is None


def test_no_known_name_is_a_near_miss() -> None:
    assert [name for name in known_variables.options() if known_variables.unknown(name)] == []


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("abc", "abc", 0), ("abc", "acb", 1), ("abc", "abd", 1), ("abc", "ab", 1), ("abc", "xabc", 1), ("abcd", "badc", 2),
     ("", "abc", 3), ("kitten", "sitting", 3)],
)  # fmt: skip
def test_distance(one: str, other: str, distance: int) -> None:
    assert known_variables.distance(one, other) == distance
    assert known_variables.distance(other, one) == distance


def test_looking_for_pieces_misses_no_slip() -> None:
    """Every name with any two neighbours swapped, or any letter lost, finds its way back."""
    for name in known_variables.options():
        for at in range(len(name) - 1):
            for slip in (name[:at] + name[at + 1] + name[at] + name[at + 2 :], name[:at] + name[at + 1 :]):
                found = known_variables.unknown(slip)
                assert found is None or found.slip, slip
                assert found is not None or slip in known_variables.options() or slip.startswith("_"), slip
