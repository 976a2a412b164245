"""The driver gate on NVLink fabrics: what has to run, and what the GPUs have to have joined."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver.health import Health, parse_smi_xml
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import driver as driver_gate
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.driver import Expected
from tests.unit.module_utils.driver.test_fabric import CLUSTER, ZEROS, gpu
from tests.unit.module_utils.gates.test_driver import STATE, UUIDS, VERSION

CASE = Path(__file__).parents[2] / "fixtures" / "cases" / "hgx-b200-no-pci-switch"
NVLSM = {"version": "2025.10.11-1", "hold": True, "broken": False}
NONE = STATE["fabric"]
B200 = {
    **STATE,
    "nvswitches": 0,
    "fabric": {**NONE, "switch_managers": 4, "ib_umad": True},
    "packages": {**STATE["packages"], "nvlsm": NVLSM},
}
GB200 = {
    **STATE,
    "nvswitches": 0,
    "packages": {**STATE["packages"], "nvidia-imex-550": {**NVLSM, "version": f"{VERSION}-1"}},
    "fabric_manager": None,
    "fabric": {**NONE, "spans_hosts": True, "imex_active": True, "imex_channel": True, "domain": f"{CLUSTER}.1"},
}
READY = gpu(CLUSTER)


def verdict(state, gpus=(READY, READY), setting="auto", packaged=True):
    expected = Expected(VERSION, len(UUIDS), fabric_manager=setting, packaged=packaged)
    return driver_gate.evaluate(state, Health(tuple(gpus)), expected, host="a1")


def without(state, **changes):
    return {**state, "fabric": {**state["fabric"], **changes}}


@pytest.mark.parametrize(
    ("state", "gpus", "code", "says", "types"),
    [
        pytest.param(B200, (READY, READY), "ok", "", "", id="HGX B200"),
        pytest.param(GB200, (READY, READY), "ok", "", "", id="GB200 wants no fabric manager of its own"),
        pytest.param(
            {**B200, "fabric_manager": None}, (READY, READY),
            "fabric_manager_missing", "NVSwitches behind 4 ConnectX functions", "ansible-playbook site.yml", id="none",
        ),
        pytest.param(
            {**B200, "packages": STATE["packages"]}, (READY, READY),
            "nvlsm_missing", "nvlsm is not installed", "ansible-playbook site.yml", id="without nvlsm",
        ),
        pytest.param(
            without(B200, ib_umad=False), (READY, READY),
            "ib_umad_missing", "ib_umad is not loaded", "On a1: modprobe ib_umad", id="without ib_umad",
        ),
        pytest.param(
            B200, (READY, gpu(None, state="In Progress")),
            "fabric_not_ready", "In Progress", "ansible a1 -b -m ansible.builtin.command -a 'journalctl -b -u nvidia-fabricmanager -u nvlsm'", id="not joined",
        ),
        pytest.param(
            STATE, (READY, gpu(None, state="In Progress")),
            "fabric_not_ready", "In Progress", "ansible a1 -b -m ansible.builtin.command -a 'journalctl -b -u nvidia-fabricmanager'", id="not joined on HGX H100",
        ),
        pytest.param(
            GB200, (READY, dataclasses.replace(READY, fabric_status="Insufficient Resources")),
            "fabric_not_ready", "Insufficient Resources", "the rack's NVLink switches", id="a rack's switches refuse",
        ),
        pytest.param(
            GB200, (READY, gpu(CLUSTER, "2")),
            "fabric_split", f"{CLUSTER}.1; GPU 0 in {CLUSTER}.2", "Reboot a1", id="two cliques in one host",
        ),
        pytest.param(
            GB200, (READY, gpu(ZEROS, "0")), "fabric_split", "GPU 0 in none", "Reboot a1", id="one outside of the domain",
        ),
    ],
)  # fmt: skip
def test_fabric(state, gpus, code, says, types):
    result = verdict(state, gpus)
    assert (result.code, result.passed) == (code, code == "ok")
    assert says in result.cause
    assert types in f"{result.cause} {result.next}"


@pytest.mark.parametrize(
    ("state", "gpus", "says", "types"),
    [
        (without(GB200, imex_active=False), (READY, READY), "IMEX does not run", "/etc/nvidia-imex/nodes_config.cfg"),
        (
            {**without(GB200, imex_active=False), "packages": STATE["packages"]},
            (READY, READY),
            "IMEX is not installed",
            "ansible-playbook site.yml",
        ),
        (
            {**GB200, "packages": {**STATE["packages"], "nvidia-imex": {**NVLSM, "version": "550.90.07-1"}}},
            (READY, READY),
            f"IMEX is 550.90.07, the driver {VERSION}",
            "ansible-playbook site.yml",
        ),
        (without(GB200, imex_channel=False), (READY, READY), "no IMEX channel", "NVreg_CreateImexChannel0=1"),
        (GB200, (gpu(ZEROS, "0"), gpu(ZEROS, "0")), "ClusterUUID is zero", "the rack's NVLink switches"),
    ],
)
def test_what_costs_only_nvlink_between_hosts_is_a_warning(state, gpus, says, types):
    result = verdict(state, gpus)
    assert result.passed
    assert says in result.warnings[0]
    assert types in result.warnings[0]


@pytest.mark.parametrize("state", [B200, {**B200, "fabric_manager": None}, without(GB200, imex_active=False)])
def test_declared_absent_asks_for_nothing(state):
    result = verdict(state, setting="absent")
    assert (result.code, result.warnings) == ("ok", ())


def test_a_platforms_driver_has_no_packages_to_look_for():
    result = verdict({**B200, "packages": {}, "fabric_manager": None}, packaged=False)
    assert result.code == "fabric_manager_missing"
    assert "Have nvidia-fabricmanager and nvlsm installed" in result.cause
    assert verdict({**B200, "packages": {}}, packaged=False).passed


def test_the_case_names_what_is_missing_and_no_unit_that_is_not_there():
    """Case hgx-b200-no-pci-switch."""
    gpus = parse_smi_xml((CASE / "q-x.xml").read_text())
    state = {**B200, "fabric_manager": None, "packages": STATE["packages"], "gpus": STATE["gpus"][:1]}
    result = driver_gate.evaluate(state, Health(gpus), Expected(VERSION, 1), host="a1")
    assert result.code == "fabric_manager_missing"
    assert {"nvlsm_missing", "fabric_not_ready"} <= set(result.measured["findings"])
    assert "journalctl -b -u nvidia-fabricmanager" not in result.next
