"""What is wrong with the variables of a run."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.plugins.loader import init_plugin_loader

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import (
    ansible_internals,
    cluster,
    known_variables,
    variables,
)
from tests.unit import inventory

ROOT = Path(__file__).parents[4]
INVENTORIES = sorted(
    path for place in ("inventories/examples", "inventories/testbed", "molecule") for path in (ROOT / place).rglob("hosts.yml")
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("nvidia_driver_version", "550.127.05", ()),
        ("nvidia_driver_version", 550.90, (
            "nvidia_driver_version is the number 550.9 to YAML, which drops zeros at its end: write it whole and in quotes, as "
            'nvidia_driver_version: "550.9"',
        )),
        ("nvidia_driver_version", 550, (
            "nvidia_driver_version is the number 550 to YAML: write it whole and in quotes, as "
            'nvidia_driver_version: "550"',
        )),
        ("nvidia_driver_version", None, ("nvidia_driver_version has no value: give it one",)),
        ("nvidia_driver_version", ["550.90.07"], ("nvidia_driver_version is a list: expected text",)),
        ("nvidia_driver_source", None, ("nvidia_driver_source has no value: give it one, or remove it",)),
        ("nvidia_driver_source", "nvida", (
            "nvidia_driver_source is nvida: choose from nvidia, mirror, ubuntu, debian, verify; did you mean nvidia?",
        )),
        ("nvidia_driver_keyring_url", None, ()),
        ("gpu_host_gpu_model", None, ()),
        ("gpu_host_zone", False, (
            "gpu_host_zone is false to YAML, as yes, no, on and off are: write it whole and in quotes, as gpu_host_zone: \"no\"",
        )),
        ("gpu_host_zone", 7, ()),
        ("gpu_host_zone", datetime.date(2026, 11, 22), (
            "gpu_host_zone is the date 2026-11-22 to YAML: write it whole and in quotes, as gpu_host_zone: \"2026-11-22\"",
        )),
        ("gpu_host_gpus", "8", ()),
        ("gpu_host_gpus", "eight", ("gpu_host_gpus is 'eight': expected a whole number",)),
        ("gpu_host_gpus", 8.5, ("gpu_host_gpus is 8.5: expected a whole number",)),
        ("gpu_host_gpus", True, ("gpu_host_gpus is true: expected a whole number",)),
        ("gpu_host_gpus", "0", ("gpu_host_gpus is 0: expected a number, 1 or more",)),
        ("gpu_host_manage_names", "perhaps", ("gpu_host_manage_names is 'perhaps': expected true or false",)),
        ("ray_node_token", 12345.0, (
            "ray_node_token is the number to YAML, which drops zeros at its end: write it whole and in quotes, as "
            'ray_node_token: "…"',
        )),
        ("ray_node_environment", "HF_TOKEN", ("ray_node_environment is something else: expected a mapping",)),
        ("ray_node_role", "haed", ("ray_node_role is haed: choose from head, worker; did you mean head?",)),
        ("vllm_server_port", "70000", ("vllm_server_port is 70000: expected a port, 1 to 65535",)),
        ("vllm_server_port", None, ("vllm_server_port has no value: give it one, or remove it",)),
        ("vllm_server_ladder", ["none", "ful"], (
            "vllm_server_ladder is ful: choose from none, piecewise, full; did you mean full?",
        )),
        ("vllm_server_ladder", [None], ("vllm_server_ladder: its item 1 has no value: give it one, or remove it",)),
        ("vllm_server_layouts", [{"name": "large"}], (
            "vllm_server_layouts: missing required arguments: tensor_parallel_size found in vllm_server_layouts",
        )),
        ("vllm_server_heartbeat", {"perod": 1}, (
            "vllm_server_heartbeat: vllm_server_heartbeat.perod. Supported parameters include: period, stale, wedged.",
        )),
        ("serving_runtime_extra_requirements", [1.10], (
            "item 1 of serving_runtime_extra_requirements is the number 1.1 to YAML, which drops zeros at its end: write it whole "
            'and in quotes, as "1.1"',
        )),
        ("rollout_canary", "many", ("rollout_canary is 'many': expected a whole number",)),
        ("rollout_wave_size", 3, ()),
        ("rollout_wave_size", "25%", ()),
        ("rollout_capacity_floor", "", ()),
        ("rollout_lock_without", "a1,b1", ()),
        ("diagnose_deadline", "soon", ("diagnose_deadline is 'soon': expected a number",)),
    ],
)  # fmt: skip
def test_faults(name: str, value: Any, said: tuple[str, ...]) -> None:
    assert tuple(variables.faults(name, value)) == said


GOOD = {
    "gpu_host_interface": "eth0",
    "gpu_host_gpus": 8,
    "nvidia_driver_version": "550.127.05",
    "ray_node_token": "t",
    "vllm_server_model": "m",
}
Read = Callable[[dict[str, Any]], inventory.Inventory]


@pytest.fixture
def found(read_inventory: Read) -> Callable[..., variables.Found]:
    """What is found in an inventory of two replicas of two hosts, and a router, with these variables."""

    def check(
        of_all: dict[str, Any], b2: dict[str, Any] | None = None, extra: tuple[str, ...] = (), **options: Any
    ) -> variables.Found:
        hosts = {
            "replica_a": {"hosts": {"a1": {"ray_node_role": "head"}, "a2": {"ray_node_role": "worker"}}},
            "replica_b": {"hosts": {"b1": {"ray_node_role": "head"}, "b2": {"ray_node_role": "worker", **(b2 or {})}}},
        }
        mine = {name: value for name, value in {**GOOD, **of_all}.items() if value != "unset"}
        groups = {"lockstep": {"children": hosts, "vars": mine}, "router": {"hosts": {"r1": {}}}}
        read = read_inventory({"children": groups})
        declared = reader(read).declared(read.task_vars, further=known_variables.beside_roles(extra))
        whole = {"limit": set(declared), "groups": read.task_vars["groups"], **options}
        return variables.check(declared, extra, **whole)

    return check


def reader(read: inventory.Inventory) -> cluster.ClusterAction:
    class Action(cluster.ClusterAction):
        """Reads an inventory, and does nothing."""

    made = Action.__new__(Action)
    made._loader, made._templar = read.loader, read.templar
    return made


def lines(found: variables.Found) -> list[str]:
    return [str(refusal) for refusal in found.refusals]


def test_nothing_is_wrong_and_a_router_is_asked_for_no_gpus(found: Callable[..., variables.Found]) -> None:
    assert found({}) == variables.Found()


def test_alike_reasons_are_one_line_with_the_hosts_that_it_is_true_of(found: Callable[..., variables.Found]) -> None:
    wrong = found({"nvidia_driver_source": "nvida"}, b2={"vllm_server_port": 0})
    assert lines(wrong) == [
        "every host of lockstep: nvidia_driver_source is nvida: choose from nvidia, mirror, ubuntu, debian, verify; did you "
        "mean nvidia?",
        "b2: vllm_server_port is 0: expected a port, 1 to 65535",
    ]
    assert wrong.names == {"nvidia_driver_source", "vllm_server_port"}


def test_hosts_are_named_where_they_are_no_group_and_the_first_where_they_are_many() -> None:
    groups = {"all": ["a", "b", "c", "d", "e", "f"], "replica_a": ["a", "b"]}
    assert variables._whose(["a", "b"], groups) == "every host of replica_a"
    assert variables._whose(list("abcdef"), groups) == "every host"
    assert variables._whose(list("abcd"), groups) == "a, b, c, d"
    assert variables._whose(list("abcde"), groups) == "a, b, c and 2 more"


def test_a_near_miss_is_refused_and_what_it_means_is_not_missing_too(found: Callable[..., variables.Found]) -> None:
    wrong = found({"nvidia_driver_version": "unset", "nvidia_driver_verison": "550.127.05"})
    assert lines(wrong) == [
        "every host of lockstep: there is no variable nvidia_driver_verison: did you mean nvidia_driver_version?"
    ]


def test_a_near_miss_of_the_command_line(found: Callable[..., variables.Found]) -> None:
    assert lines(found({}, extra=("rollout_canry",))) == [
        "-e: there is no variable rollout_canry: did you mean rollout_canary?"
    ]


def test_another_unknown_name_under_a_prefix_of_ours_is_a_warning(found: Callable[..., variables.Found]) -> None:
    warned = found({"vllm_server_quantization": "fp8", "site_name": "x"})
    assert warned.refusals == ()
    assert warned.warnings == (
        "every host of lockstep: vllm_server_quantization is set, and Lockstep has no such variable: it does nothing",
    )


def test_what_is_missing(found: Callable[..., variables.Found]) -> None:
    missing = {"nvidia_driver_version": "unset", "vllm_server_model": "unset"}
    assert lines(found(missing)) == [
        "every host of lockstep: nvidia_driver_version is not set; see inventories/examples",
        "every host of lockstep: vllm_server_model is not set; see inventories/examples",
    ]
    assert lines(found(missing, without=("nvidia_driver_version",))) == [
        "every host of lockstep: vllm_server_model is not set; see inventories/examples"
    ]


def test_a_template_that_fails_is_said_of_the_variable_that_holds_it(found: Callable[..., variables.Found]) -> None:
    """vllm_server_served_model_name is vllm_server_model by default, and fails with it."""
    assert lines(found({"vllm_server_model": "{{ models.main }}"})) == [
        "every host of lockstep: vllm_server_model cannot be templated: 'models' is undefined"
    ]


def test_values_are_those_of_each_host(found: Callable[..., variables.Found]) -> None:
    assert lines(found({"nvidia_driver_flavor": "{{ flavor | default('open') }}"}, b2={"flavor": "opened"})) == [
        "b2: nvidia_driver_flavor is opened: choose from open, proprietary; did you mean open?"
    ]


def test_a_default_that_is_worked_out_of_others_is_checked(found: Callable[..., variables.Found]) -> None:
    said = lines(found({"vllm_server_proof_deadline": 1e308, "vllm_server_start_deadline": 1e308}))
    assert said == ["every host of lockstep: vllm_server_serving_deadline is inf: expected seconds, more than 0"]


def test_a_number_that_the_command_line_gives_as_text_is_one(found: Callable[..., variables.Found]) -> None:
    """``-e vllm_server_wait_deadline=3600`` is text; what the roles' defaults work out of it has to bear that."""
    assert found({"vllm_server_wait_deadline": "3600", "gpu_host_gpus": "8"}) == variables.Found()


def test_hosts_that_are_not_in_the_run_may_be_as_they_are(found: Callable[..., variables.Found]) -> None:
    wrong = {"vllm_server_port": 0, "nvidia_driver_verison": "1", "gpu_host_zone": "{{ nowhere }}"}
    assert found({}, b2=wrong, limit={"a1", "a2"}) == variables.Found()


def test_it_is_said_where_a_variable_is_set(found: Callable[..., variables.Found]) -> None:
    wrong = found({"vllm_server_port": 0}, places=lambda host, name: f"{name}.yml:3")
    assert lines(wrong)[0].endswith("expected a port, 1 to 65535 (vllm_server_port.yml:3)")


def test_the_file_and_line_of_a_variable(read_inventory: Read) -> None:
    read = read_inventory({"children": {"lockstep": {"hosts": {"a1": {"vllm_server_port": None}}}}})
    declared = reader(read).declared(read.task_vars)["a1"]
    place = next(map(ansible_internals.written_at, declared.named("vllm_server_port")))
    assert place.endswith("inventory.yml:6")
    assert [*declared.named("vllm_server_model")] == []
    assert ansible_internals.written_at("of nowhere") == ""


def test_there_are_inventories_to_read() -> None:
    assert len(INVENTORIES) >= 9


@pytest.mark.filterwarnings("ignore:AnsibleCollectionFinder has already been configured")
@pytest.mark.parametrize("path", INVENTORIES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_every_inventory_of_this_repository_passes(path: Path, tmp_path: Path) -> None:
    """With what the testbed's build and a vault put beside it."""
    init_plugin_loader()  # for the lookups of the inventories
    (tmp_path / "id_ed25519").write_text("key")
    beside = {
        "testbed_state": str(tmp_path),
        "testbed_facts": {
            **dict.fromkeys(("keyring_sha256", "vllm_sha256", "lockstep_testbed_platform_sha256"), "0" * 64),
            "proof_prompt": "p",
            "proof_answer": "a",
        },
        "vault_ray_node_token": "t",
        "vault_vllm_server_api_key": "k",
    }
    read = inventory.read(path)
    declared = reader(read).declared(read.task_vars, over=beside, further=known_variables.beside_roles(()))
    assert declared or "molecule" in path.parts
    assert variables.check(declared, (), set(declared)) == variables.Found()
