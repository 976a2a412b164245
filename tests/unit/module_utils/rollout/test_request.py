"""What the inventory asks for against what hosts are and have: from real inventories and the probe's own readers to a plan."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import nvidia_smi
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import config as engine_config
from ansible_collections.lockstep.vllm.plugins.module_utils.host import machine as host_machine
from ansible_collections.lockstep.vllm.plugins.module_utils.host import model as host_model
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import plan
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import Observed
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.policy import Policy
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import Mode
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import cluster as controller
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import heads
from tests.unit import inventory
from tests.unit.documented import documented, is_documented

FIXTURES = Path(__file__).parents[2] / "fixtures"
CASES = FIXTURES / "cases"
NOON = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
VERSION = "580.95.05"
FACTS = json.dumps(
    {
        **dict.fromkeys(("keyring_sha256", "vllm_sha256", "lockstep_testbed_platform_sha256"), "0" * 64),
        "proof_prompt": "p",
        "proof_answer": "a",
    }
)
"""What the testbed's build writes down."""
ROUTE = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


class Heads(heads.HeadsAction):
    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        return super().run(tmp, task_vars)


def read(path: Path) -> controller.Cluster:
    """The cluster that an inventory declares, as the plan's action reads it."""
    found = inventory.read(path)
    action = Heads.__new__(Heads)
    action._loader, action._templar = found.loader, found.templar
    action._task = types.SimpleNamespace(become=False)
    return action.cluster(found.task_vars)


def smi(rows: list[tuple[str, str]]) -> dict[str, Any]:
    """The driver's part of a probe for GPUs of these names and UUIDs, through the reader of nvidia-smi."""
    head = "index, uuid, name, memory.total [MiB], persistence_mode, pci.bus_id, driver_version\n"
    lines = [
        f"{n}, {uuid}, {name}, 81559, Enabled, 00000000:0{n}:00.0, {VERSION}\n" for n, (name, uuid) in enumerate(rows)
    ]
    return {"gpus": nvidia_smi.parse_gpus(head + "".join(lines)), "smi_failure": None}


def answer(host: str, address: str, gpus: int = 8, **changes: Any) -> dict[str, Any]:
    """What a healthy host on which nothing of Lockstep is yet answers; ``driver`` is merged."""
    driver = {
        "package_version": VERSION,
        "loaded_version": VERSION,
        "packages": {"libcuda1": {"version": f"{VERSION}-1", "hold": True}},
        **smi([("NVIDIA H100 80GB HBM3", f"GPU-{host}-{n}") for n in range(gpus)]),
        **changes.pop("driver", {}),
    }
    shown = json.dumps([{"ifname": "bond0", "addr_info": [{"local": address, "prefixlen": 24}]}])
    return {
        "os": {"distribution": "ubuntu", "like": "debian", "version": "22.04", "kernel": "6.8.0"},
        "boot": {"id": f"boot-{host}", "monotonic_us": f"{host[-1]}0000"},
        "driver": driver,
        "runtime": {},
        "units": {},
        "stamps": {"host": None, "replica": None},
        "manifest": {},
        "networks": host_machine.networks(shown, ROUTE),
        "machine": {
            "id": f"id-{host}", "pci_gpus": gpus, "ephemeral_ports": [32768, 60999], "reserved_ports": "",
        },
        "preflight": {"taken_ports": {}, "names": {}},
        **changes,
    }  # fmt: skip


def planned(
    cluster: controller.Cluster,
    answers: dict[str, dict[str, Any]] | None = None,
    mode: Mode = Mode.CONVERGE,
    unreachable: tuple[str, ...] = (),
) -> plan.Plan:
    """The plan for ``cluster`` whose hosts answer as fresh ones, but for ``answers``."""
    assert cluster.topology.problems == ()
    observed: dict[str, Observed] = {}
    for replica in cluster.topology.replicas:
        observed |= {host: Observed.parse(_answer(cluster, host, answers or {}), None, True) for host in replica.hosts}
    observed |= {host: Observed(None, "no route to host", False) for host in unreachable}
    return plan.build(cluster.topology, cluster.wanted, observed, plan.Run(mode, Policy(), NOON, None))


def _answer(cluster: controller.Cluster, host: str, answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    settings = cluster.wanted[host].settings
    return answers.get(host) or answer(host, settings["gpu_host_address"], settings.get("gpu_host_gpus", 0))


def lines(found: plan.Plan) -> list[str]:
    return [str(stop) for stop in found.refusals]


@pytest.fixture
def declare(tmp_path: Path) -> Callable[..., controller.Cluster]:
    """A replica of a head ``gpu-01`` and workers, with variables for all, and by host."""

    def made(hosts: int = 2, by_host: dict[str, dict[str, Any]] | None = None, **variables: Any) -> controller.Cluster:
        names = [f"gpu-{n:02d}" for n in range(1, hosts + 1)]
        replica = {
            name: {
                "gpu_host_address": f"10.30.0.{n}",
                "ray_node_role": "worker" if n > 1 else "head",
                **(by_host or {}).get(name, {}),
            }
            for n, name in enumerate(names, 1)
        }
        common = {
            "gpu_host_interface": "bond0",
            "gpu_host_gpus": 8,
            "nvidia_driver_version": VERSION,
            "vllm_server_model": "owner/model",
            "vllm_server_tensor_parallel_size": 8,
            "vllm_server_pipeline_parallel_size": hosts,
            **variables,
        }
        common = {name: value for name, value in common.items() if value is not ...}
        root = {"children": {"replica_a": {"hosts": replica}}, "vars": common}
        path = tmp_path / "hosts.yml"
        path.write_text(yaml.safe_dump({"all": {"children": {"lockstep": root}}}))
        return read(path)

    return made


def case(name: str, folder: Path) -> controller.Cluster:
    """The inventory of a case that was seen in the field."""
    shutil.copy(CASES / name / "hosts.yml", folder / "hosts.yml")
    (folder / "group_vars").mkdir()
    shutil.copy(CASES / name / "group_vars.yml", folder / "group_vars/lockstep.yml")
    return read(folder / "hosts.yml")


def test_a_replica_that_can_serve_is_planned(declare: Callable[..., controller.Cluster]) -> None:
    found = planned(declare())
    assert lines(found) == []
    assert found.warnings == ()
    assert [wave.replicas for wave in found.waves] == [("replica_a",)]


def test_data_parallel_engines_are_counted_and_need_ray(tmp_path: Path) -> None:
    """shared case plan-data-parallel."""
    cluster = case("plan-data-parallel", tmp_path)
    (line,) = lines(planned(cluster))
    assert line.startswith("gpu-01 (replica_a): vllm_server_args sets data-parallel-size 2")
    assert "add to vllm_server_args: {data-parallel-backend: ray}" in line
    documented("plan-data-parallel", line)
    variables = yaml.safe_load((tmp_path / "group_vars/lockstep.yml").read_text())
    variables["vllm_server_args"]["data-parallel-backend"] = "ray"
    (tmp_path / "group_vars/lockstep.yml").write_text(yaml.safe_dump(variables))
    assert lines(planned(read(tmp_path / "hosts.yml"))) == []
    variables["vllm_server_args"]["data-parallel-size"] = 4
    (tmp_path / "group_vars/lockstep.yml").write_text(yaml.safe_dump(variables))
    (line,) = lines(planned(read(tmp_path / "hosts.yml")))
    assert "TP 8 × PP 1 × DP 4) wants 32 GPUs, the inventory declares 16 (gpu-01 has 8, gpu-02 has 8)" in line


def test_graphs_of_the_operator_s_own_are_the_top_rung_or_refused_before_anything_changes(tmp_path: Path) -> None:
    """shared case ladder-decode-only: vllm-project/vllm#40969."""
    cluster = case("ladder-decode-only", tmp_path)
    assert lines(planned(cluster)) == []
    config = engine_config.parse(dict(cluster.wanted["gpu-01"].engine or {}))
    (layout,) = config.layouts
    command = engine_config.command("vllm", config, layout, config.rungs(layout)[-1], "10.30.0.11")
    given = json.loads(command[command.index("--compilation-config") + 1])
    assert given == {"cudagraph_mode": "FULL_DECODE_ONLY"}
    variables = yaml.safe_load((tmp_path / "group_vars/lockstep.yml").read_text())
    for ladder, expected in ((["none", "piecewise"], "use [none, piecewise, full]"), (["none"], "")):
        text = yaml.safe_dump({**variables, "vllm_server_ladder": ladder})
        (tmp_path / "group_vars/lockstep.yml").write_text(text)
        found = lines(planned(read(tmp_path / "hosts.yml")))
        assert (expected in found[0]) if expected else (found == [])


def test_sizes_over_the_gpus_and_an_owned_argument_are_both_refused(tmp_path: Path) -> None:
    """shared case plan-sizes-over-gpus."""
    owned, sizes = lines(planned(case("plan-sizes-over-gpus", tmp_path)))
    assert "sets tensor-parallel-size; use vllm_server_tensor_parallel_size instead" in owned
    assert "wants 32 GPUs, the inventory declares 16" in sizes
    assert "change vllm_server_tensor_parallel_size and vllm_server_pipeline_parallel_size" in sizes
    documented("plan-sizes-over-gpus", f"{owned} {sizes}")


def test_different_cards_in_one_replica_warn(declare: Callable[..., controller.Cluster]) -> None:
    """shared case plan-mixed-cards."""
    answers = {}
    for n, name in enumerate(("head", "worker"), 1):
        rows = nvidia_smi.parse_gpus((CASES / "plan-mixed-cards" / f"query-gpu-{name}.csv").read_text())
        answers[f"gpu-0{n}"] = answer(f"gpu-0{n}", f"10.30.0.{n}", 1, driver={"gpus": rows})
    sizes = {"vllm_server_tensor_parallel_size": 1, "gpu_host_gpus": 1}
    found = planned(declare(**sizes), answers)
    assert lines(found) == []
    (warning,) = map(str, found.warnings)
    assert "NVIDIA A100-SXM4-80GB on gpu-01, NVIDIA H100 80GB HBM3 on gpu-02" in warning
    documented("plan-mixed-cards", warning)
    named = planned(declare(**sizes, gpu_host_gpu_model="A100"), answers)
    assert named.warnings == ()
    (line,) = lines(named)
    assert line.startswith("gpu-02 (replica_a): NVIDIA H100 80GB HBM3 found, gpu_host_gpu_model is A100")


@pytest.mark.parametrize(("word", "card"), [("L4", "NVIDIA L40S"), ("H200", "NVIDIA GH200 480GB")])
def test_a_declared_card_is_whole_words(word: str, card: str, declare: Callable[..., controller.Cluster]) -> None:
    answers = {"gpu-01": answer("gpu-01", "10.30.0.1", driver=smi([(card, f"GPU-{n}") for n in range(8)]))}
    (line,) = lines(planned(declare(hosts=1, gpu_host_gpu_model=word), answers))
    assert f"{card} found, gpu_host_gpu_model is {word}" in line
    documented(f"{word} declared, {card} found", line)


def two_nics(host: str, metrics: tuple[int, int]) -> dict[str, Any]:
    """The networks of the shared case net-two-nics-one-subnet, as ip and the kernel's table show them."""
    given = json.loads((CASES / "net-two-nics-one-subnet/addresses.json").read_text())[host]
    shown = [
        {"ifname": name, "addr_info": [{"local": text.split("/")[0], "prefixlen": int(text.split("/")[1])}]}
        for name, (text,) in given.items()
    ]
    table = ROUTE + "".join(
        f"{name}\t0000280A\t00000000\t0001\t0\t0\t{metric}\t00F0FFFF\t0\t0\t0\n"
        for name, metric in zip(given, metrics, strict=True)
    )
    return host_machine.networks(json.dumps(shown), table)


@pytest.mark.parametrize(
    ("metrics", "warned"), [((0, 0), True), ((100, 100), True), ((100, 101), True), ((101, 100), False)]
)
def test_two_interfaces_in_one_network_warn(
    metrics: tuple[int, int], warned: bool, declare: Callable[..., controller.Cluster]
) -> None:
    """shared case net-two-nics-one-subnet; its two remedies are other networks and other metrics."""
    settings = yaml.safe_load((CASES / "net-two-nics-one-subnet/settings.yml").read_text())
    answers, by_host = {}, {}
    for n, address in ((1, "10.40.3.8"), (2, "10.40.3.9")):
        host = f"gpu-0{n}"
        by_host[host] = {"gpu_host_address": address}
        found = two_nics(host, metrics)
        answers[host] = answer(host, address, networks=found)
    result = planned(declare(by_host=by_host, **settings), answers)
    assert lines(result) == []
    if warned:
        first, second = map(str, result.warnings)
        assert "eno1 (10.40.0.8) and enp37s0f0 (10.40.3.8) of gpu-01 are both in 10.40.0.0/20" in first
        assert "of gpu-02 are both in 10.40.0.0/20" in second
        documented("net-two-nics-one-subnet", first)
    else:
        assert result.warnings == ()


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ((0, 0, 0), "ib0 (10.50.0.10), ib1 (10.50.0.11) and ib2 (10.50.0.12) of gpu-01 are all in 10.50.0.0/24"),
        ((100, 101, 102), ""),
        ((None, None, None), ""),
    ],
)
def test_rails_in_one_network_warn_once(
    metrics: tuple[int | None, ...], said: str, declare: Callable[..., controller.Cluster]
) -> None:
    shown = answer("gpu-01", "10.30.0.1")
    for n, metric in enumerate(metrics):
        shown["networks"][f"ib{n}"] = [{"address": f"10.50.0.1{n}", "prefix": 24, "metric": metric}]
    warnings = [*map(str, planned(declare(), {"gpu-01": shown}).warnings)]
    assert len(warnings) == bool(said)
    assert all(said in line and "metrics of their own\n" not in line for line in warnings)


CARRIES = {"kernel": True, "tun": False, "port_taken": False, "mtu": {"bond0": 9000, "lo": 65536}}
TUNNEL = {"ray_node_encryption": "wireguard"}


def carrying(host: str, **changes: Any) -> dict[str, Any]:
    """What a host answers that was asked about a tunnel; ``wanted`` and ``networks`` go elsewhere than into its preflight."""
    wanted, networks = changes.pop("wanted", False), changes.pop("networks", {})
    found = answer(host, f"10.30.0.{host[-1]}", tunnel={"wanted": wanted, "problem": ""})
    found["networks"] |= networks
    found["preflight"]["tunnel"] = {**CARRIES, **changes}
    return found


def one_network(prefix: int, address: str) -> dict[str, Any]:
    return {"wg0": [{"address": address, "prefix": prefix, "metric": None}]}


@pytest.mark.parametrize(
    ("variables", "by_host", "changes", "expected"),
    [
        pytest.param({}, {}, {}, [], id="kernel"),
        pytest.param({}, {}, {"kernel": False, "tun": True}, [], id="wireguard-go"),
        pytest.param({}, {}, {"kernel": False}, ["gpu-02: its kernel 6.8.0 has no WireGuard, and there is no /dev/net/tun"], id="neither"),
        pytest.param({}, {}, {"port_taken": True}, ["gpu-02: something listens on UDP 6389: set ray_node_encryption_port"], id="port taken"),
        pytest.param({}, {}, {"port_taken": True, "wanted": True}, [], id="port taken by the tunnel itself"),
        pytest.param({}, {}, {"mtu": {"bond0": 1280}}, ["gpu-02: bond0 has an MTU of 1280; the tunnel in it takes 80 bytes"], id="mtu"),
        pytest.param({"ray_node_encryption_port": 6380}, {}, {}, ["gpu-01: ray_node_ports: node_manager and ray_node_encryption_port are both 6380", "gpu-02: ray_node_ports: node_manager and ray_node_encryption_port are both 6380"], id="port of Ray"),
        pytest.param({"gpu_host_filter": False}, {}, {}, ["gpu-01: ray_node_encryption without gpu_host_filter", "gpu-02: ray_node_encryption without gpu_host_filter"], id="no filter"),
        pytest.param({}, {"gpu-02": {"ray_node_encryption": "none"}}, {}, ["replica_a: ray_node_encryption differs among its hosts"], id="one in the clear"),
        pytest.param({}, {"gpu-02": {"ray_node_encryption_port": 7000}}, {}, ["replica_a: ray_node_encryption_port differs among its hosts"], id="two ports"),
        pytest.param({"ray_node_encryption_network": "198.18.0.0/31"}, {}, {}, ["replica_a: ray_node_encryption_network: 198.18.0.0/31 has 0 addresses, the replica 2 hosts"], id="small"),
        pytest.param({"ray_node_encryption_network": "10.30.0.0/16"}, {}, {}, ["gpu-01: the tunnel's 10.30.0.0/16 overlaps 10.30.0.0/24 (bond0)", "gpu-02: the tunnel's"], id="the hosts' own network"),
        pytest.param({}, {}, {"networks": one_network(15, "198.19.0.1")}, ["gpu-02: the tunnel's 198.18.0.0/24 overlaps 198.18.0.0/15 (wg0)"], id="another's network"),
        pytest.param({"ray_node_encryption_network": "x"}, {}, {}, ["replica_a: ray_node_encryption_network: "], id="no network"),
    ],
)  # fmt: skip
def test_a_tunnel_is_held_against_the_hosts(
    variables: dict[str, Any], by_host: dict[str, Any], changes: dict[str, Any], expected: list[str], declare: Callable[..., controller.Cluster],
) -> None:  # fmt: skip
    answers = {"gpu-01": carrying("gpu-01"), "gpu-02": carrying("gpu-02", **changes)}
    found = planned(declare(by_host=by_host, **TUNNEL, **variables), answers)
    assert len(lines(found)) == len(expected)
    assert all(said in line for said, line in zip(expected, lines(found), strict=True))
    assert found.warnings == ()


def test_only_those_who_ask_for_a_tunnel_are_asked_what_there_is_for_one(
    declare: Callable[..., controller.Cluster],
) -> None:
    for variables, expected in (({}, None), (TUNNEL, 6389), ({**TUNNEL, "ray_node_encryption_port": 7000}, 7000)):
        cluster = declare(**variables)
        assert controller._questions(cluster, "gpu-01", cluster.wanted["gpu-01"])["tunnel"] == expected


def test_a_tunnel_that_is_down_is_due(declare: Callable[..., controller.Cluster]) -> None:
    down = carrying("gpu-02", wanted=True)
    down["tunnel"]["problem"] = "lockstep0 is not up"
    down["manifest"] = {"ray_node": {"current": True, "drifted": []}}
    found = planned(declare(**TUNNEL), {"gpu-01": carrying("gpu-01"), "gpu-02": down})
    (wave,) = found.waves
    assert "ray: tunnel: lockstep0 is not up" in str(wave)


@pytest.mark.parametrize(
    ("hosts", "variables", "relied_on"),
    [
        (2, {}, "the packet filter neither"),
        (2, TUNNEL, "the packet filter and ray_node_encryption neither"),
        (2, {"gpu_host_filter": False}, None),
        (1, {}, None),
    ],
)
def test_rdma_that_nothing_filters_or_encrypts_warns(
    hosts: int, variables: dict[str, Any], relied_on: str | None, declare: Callable[..., controller.Cluster]
) -> None:
    shown = carrying("gpu-01")
    shown["machine"]["rdma"] = ["mlx5_0", "mlx5_1"]
    warnings = [*map(str, planned(declare(hosts=hosts, **variables), {"gpu-01": shown}).warnings)]
    if relied_on is None:
        assert warnings == []
    else:
        (line,) = warnings
        assert (
            f"replica_a has RDMA between its hosts, gpu-01 (mlx5_0, mlx5_1): {relied_on} filters nor encrypts it"
            in line
        )


@pytest.mark.parametrize(
    ("hosts", "variables", "by_host", "said"),
    [
        pytest.param(
            2, {"vllm_server_tensor_parallel_size": ..., "vllm_server_pipeline_parallel_size": 1}, {},
            "vllm_server_tensor_parallel_size is not set, so the engine takes 1 GPU of 16", id="no size",
        ),
        pytest.param(
            3, {"vllm_server_pipeline_parallel_size": 2}, {"gpu-03": {"gpu_host_gpus": 4}},
            "replica_a: gpu-03 has 4, fewer GPUs than any layout needs of a host", id="a worker that never counts",
        ),
    ],
)  # fmt: skip
def test_what_is_probably_a_mistake_warns(
    hosts: int,
    variables: dict[str, Any],
    by_host: dict[str, dict[str, Any]],
    said: str,
    declare: Callable[..., controller.Cluster],
) -> None:
    found = planned(declare(hosts=hosts, by_host=by_host, **variables))
    assert lines(found) == []
    (warning,) = map(str, found.warnings)
    assert said in warning


def test_a_router_s_ports_are_held_against_each_other_and_the_head_s(
    tmp_path: Path, declare: Callable[..., controller.Cluster]
) -> None:
    declare(hosts=1, vllm_haproxy_api_port=8000)
    inventory_of = yaml.safe_load((tmp_path / "hosts.yml").read_text())
    inventory_of["all"]["children"]["router"] = {
        "hosts": {
            "gpu-01": {"vllm_haproxy_metrics_clients": ["10.0.9.4"], "vllm_haproxy_metrics_port": 8001},
            "r1": {
                "vllm_haproxy_api_port": 8404,
                "vllm_haproxy_metrics_port": 8404,  # nobody listens there
                "vllm_haproxy_metrics_clients": [],
            },
            "r2": {"vllm_haproxy_metrics_clients": ["10.0.9.0/28", "prometheus"]},
        },
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory_of))
    assert lines(planned(read(tmp_path / "hosts.yml"))) == [
        "gpu-01: vllm_server_port and vllm_haproxy_api_port are both 8000: choose another port for one of them",
        "gpu-01: vllm_server_ready_port and vllm_haproxy_metrics_port are both 8001: choose another port for one of them",
        "r1: vllm_haproxy_api_port and vllm_haproxy_stats_port are both 8404: choose another port for one of them",
        "r2: vllm_haproxy_metrics_clients has 'prometheus', which is no address and no network",
    ]


SMALL_HEAD = {"gpu-01": {"gpu_host_gpus": 4}}


@pytest.mark.parametrize(
    ("variables", "by_host", "expected"),
    [
        pytest.param(
            {"vllm_server_tensor_parallel_size": 4},
            {"gpu-01": {"gpu_host_gpus": 0}},
            ["gpu-01 (replica_a): gpu_host_gpus is 0 on the head"],
            id="a head without GPUs",
        ),
        pytest.param(
            {"vllm_server_tensor_parallel_size": 4},
            SMALL_HEAD,
            ["the head has 4 GPUs, and gpu-02 has 8: Ray would put", "Give ray_node_role: head to gpu-02"],
            id="a head with fewer GPUs than a worker",
        ),
        pytest.param(
            {"vllm_server_tensor_parallel_size": 4, "vllm_server_pipeline_parallel_size": 3},
            {"gpu-02": {"gpu_host_gpus": 4}},
            ["tp4pp3 (TP 4 × PP 3) wants 2 hosts with at least 8 GPUs each, and gpu-02 has 4"],
            id="a worker with fewer",
        ),
        pytest.param(
            {"vllm_server_layouts": [{"tensor_parallel_size": 8}, {"name": "big", "tensor_parallel_size": 64}]},
            {},
            ["replica_a: big (TP 64 × PP 1) wants 64 GPUs", "change vllm_server_layouts"],
            id="every layout counts",
        ),
        pytest.param({"vllm_server_model": ""}, {}, ["vllm_server_model is not set"], id="no model"),
        pytest.param(
            {"vllm_server_model": "../m"}, {}, ["neither an absolute path nor a name"], id="a model by a relative path"
        ),
        pytest.param(
            {"vllm_server_model": "/root/m"}, {}, ["hidden from the engine (ProtectHome=yes)"], id="a model in a home"
        ),
        pytest.param(
            {"vllm_server_ladder": ["eager"]},
            {},
            ["vllm_server_ladder is ['eager']: give some of"],
            id="a rung that does not exist",
        ),
        pytest.param(
            {"vllm_server_args": {"--api-key": "x"}},
            {},
            ["use vllm_server_api_key instead"],
            id="an API key among the arguments",
        ),
        pytest.param(
            {"vllm_server_args": {"host": "x"}},
            {},
            ["use gpu_host_address instead"],
            id="an address among the arguments",
        ),
        pytest.param(
            {"serving_runtime_lock": "/nowhere.txt"},
            {},
            ["gpu-01, gpu-02 (replica_a): serving_runtime_lock /nowhere.txt cannot be read on the controller"],
            id="a lock that cannot be read",
        ),
        pytest.param(
            {"serving_runtime_lock": "mine.txt"},
            {},
            ["serving_runtime_lock is 'mine.txt': give cuda or cpu"],
            id="a lock by a relative path",
        ),
        pytest.param(
            {"serving_runtime_extra_requirements": ["plugin==1.0"]},
            {},
            [
                "gpu-01, gpu-02 (replica_a): serving_runtime_extra_requirements: plugin==1.0 without a hash; all else is locked"
            ],
            id="a further requirement without its hash",
        ),
        pytest.param(
            {"vllm_server_environment": {"HF_HOME": "/data/hf"}},
            {},
            ["would be kept in /data/hf/hub (HF_HOME in vllm_server_environment), which the engine may not write"],
            id="a cache that is read-only",
        ),
        pytest.param(
            {"vllm_server_cache": "/home/models"},
            {},
            ["/home/models/hub (vllm_server_cache) is hidden from the engine"],
            id="a cache that is hidden",
        ),
        pytest.param(
            {"vllm_server_cache": "models"}, {}, ["vllm_server_cache models is no absolute path"], id="no path"
        ),
        pytest.param(
            {"vllm_server_args": {"download-dir": "/models"}}, {}, ["in /models (download-dir in"], id="download-dir"
        ),
        pytest.param(
            {"vllm_server_port": 8001},
            {},
            ["gpu-01: vllm_server_port and vllm_server_ready_port are both 8001"],
            id="two of our ports",
        ),
        pytest.param(
            {"vllm_server_ready_port": 29650},
            {},
            ["vllm_server_ready_port and the gates are both 29650"],
            id="a port that the gates use",
        ),
        pytest.param(
            {"ray_node_ports": {"metrics": 20500}},
            {},
            ["ray_node_ports: metrics and ray_node_ports: workers_first to workers_last are both 20500"] * 2,
            id="in Ray's range, on every host",
        ),
        pytest.param(
            {"vllm_server_port": 443}, {}, ["vllm_server_port is 443: the user lockstep can"], id="a port below 1024"
        ),
        pytest.param(
            {"ray_node_ports": {"workers_first": 21000}},
            {},
            ["workers_last is empty"] * 2,
            id="an empty range of ports",
        ),
        pytest.param(
            {"ray_node_ports": {"metrix": 1}},
            {},
            ["gpu-01: ray_node_ports: unknown metrix", "gpu-02: "],
            id="a port of Ray that does not exist",
        ),
        pytest.param(
            {"gpu_host_filter_clients": ["controller", "any", "10.40.0.0/33"]},
            {},
            ["gpu-01: gpu_host_filter_clients: '10.40.0.0/33' is neither an address nor a network", "gpu-02: "],
            id="a client that is no network",
        ),
        pytest.param(
            {"gpu_host_filter_open": [{"ports": 51820, "proto": "udp"}]},
            {},
            ["gpu-01: gpu_host_filter_open: unknown proto; known are ports, protocol, from", "gpu-02: "],
            id="an opening of no kind",
        ),
        pytest.param(
            {"gpu_host_filter_egress": ["hub.example"]},
            {},
            ["gpu-01: gpu_host_filter_egress: 'hub.example' is neither an address nor a network", "gpu-02: "],
            id="a name to go out to",
        ),
        pytest.param(
            {"gpu_host_filter_egress": [], "gpu_host_filter": False},
            {},
            ["gpu-01: gpu_host_filter_egress without gpu_host_filter: nothing would hold it", "gpu-02: "],
            id="limits that nothing would hold",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    variables: dict[str, Any],
    by_host: dict[str, dict[str, Any]],
    expected: list[str],
    declare: Callable[..., controller.Cluster],
    request: pytest.FixtureRequest,
) -> None:
    found = lines(planned(declare(by_host=by_host, **variables)))
    text = "\n".join(found)
    if is_documented(case := request.node.callspec.id):
        documented(case, text)
    for part in expected:
        assert part in text
        assert text.count(part) == expected.count(part)


@pytest.mark.parametrize(
    ("variables", "by_host"),
    [
        pytest.param({"vllm_server_tensor_parallel_size": 4}, {}, id="hosts that the engine does not need are spares"),
        pytest.param(
            {"vllm_server_environment": {"HF_HOME": "/var/lib/lockstep/engine/hf"}}, {}, id="a cache of its own"
        ),
        pytest.param({"vllm_server_cache": "/mnt/data/models"}, {}, id="a cache on a disk of its own"),
        pytest.param({"vllm_server_model": "s3://bucket/model"}, {}, id="a model that a loader of vLLM streams"),
    ],
)
def test_what_can_work_is_planned(
    variables: dict[str, Any], by_host: dict[str, dict[str, Any]], declare: Callable[..., controller.Cluster]
) -> None:
    found = planned(declare(by_host=by_host, **variables))
    assert lines(found) == []
    assert found.warnings == ()


def test_all_reasons_of_all_hosts_are_collected(declare: Callable[..., controller.Cluster]) -> None:
    cluster = declare(
        hosts=3,
        vllm_server_ladder=["eager"],
        vllm_server_args={"port": 1, "tp": 2},
        vllm_server_pipeline_parallel_size=9,
        serving_runtime_lock="x",
    )
    short = answer("gpu-02", "10.30.0.2", 7)
    found = planned(cluster, {"gpu-02": short}, unreachable=("gpu-03",))
    text = "\n".join(lines(found))
    for part in (
        "gpu-03: unreachable",
        "vllm_server_ladder",
        "sets port",
        "sets tp; use vllm_server_tensor_parallel_size",
        "wants 72 GPUs",
        "serving_runtime_lock is 'x'",
        "gpu-02 (replica_a): nvidia-smi shows 7 GPUs, gpu_host_gpus is 8",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("changes", "pci", "refused", "warned"),
    [
        pytest.param({}, 8, "", "", id="as declared"),
        pytest.param(smi([("NVIDIA H100", f"GPU-{n}") for n in range(7)]), 8, "nvidia-smi shows 7 GPUs", "", id="one less"),
        pytest.param(smi([("NVIDIA H100", f"GPU-{n}") for n in range(9)]), 8, "nvidia-smi shows 9 GPUs", "", id="one more"),
        pytest.param(
            {"gpus": [], "smi_failure": {"code": "no_devices", "text": "No devices were found"}}, 8,
            "nvidia-smi shows 0 GPUs", "", id="none",
        ),
        pytest.param(
            {"gpus": [], "smi_failure": {"code": "timed_out", "text": "hangs"}}, 4, "", "", id="a driver that hangs"
        ),
        pytest.param(
            {"loaded_version": "550.90.07", **smi([("NVIDIA H100", f"GPU-{n}") for n in range(7)])}, 8,
            "", "nvidia-smi shows 7 GPUs", id="one less to a driver that will be replaced",
        ),
        pytest.param(
            {"loaded_version": None, "gpus": []}, 6, "the PCI bus shows 6 GPUs", "", id="fewer cards, no driver yet"
        ),
        pytest.param({"loaded_version": None, "gpus": []}, 9, "", "", id="a card for the screen"),
        pytest.param({"loaded_version": None, "gpus": []}, 0, "", "", id="a bus that shows nothing"),
    ],
)  # fmt: skip
def test_what_a_host_shows_is_held_against_what_it_declares(
    changes: dict[str, Any], pci: int, refused: str, warned: str, declare: Callable[..., controller.Cluster]
) -> None:
    shown = answer("gpu-02", "10.30.0.2", driver=changes)
    shown["machine"]["pci_gpus"] = pci
    found = planned(declare(), {"gpu-02": shown})
    assert [line for line in lines(found) if "GPU" in line] == [
        line for line in lines(found) if refused and refused in line
    ]
    assert bool(refused) == bool(lines(found))
    assert bool(warned) == any(warned in str(line) for line in found.warnings if warned)


def test_a_replica_that_shows_less_says_which_layouts_are_left(declare: Callable[..., controller.Cluster]) -> None:
    sizes = [{"name": "large", "tensor_parallel_size": 16}, {"name": "small", "tensor_parallel_size": 8}]
    found = planned(declare(vllm_server_layouts=sizes), {"gpu-02": answer("gpu-02", "10.30.0.2", 4)})
    assert "gpu-02 (replica_a): nvidia-smi shows 4 GPUs" in lines(found)[0]
    (warning,) = map(str, found.warnings)
    assert "large (TP 16 × PP 1) does not fit the GPUs that its hosts show (gpu-01 has 8, gpu-02 has 4)" in warning
    assert warning.endswith("what fits: small")


@pytest.mark.parametrize("mode", [Mode.VERIFY, Mode.ABORT])
def test_runs_that_repair_are_only_warned(mode: Mode, declare: Callable[..., controller.Cluster]) -> None:
    old = {"version": "550.90.07", "source": "nvidia", "flavor": "open"}
    change = {"change": None, "roll": {"from": old, "over": None}, "verified": {**old, "version": VERSION}}
    states = {f"gpu-0{n}": answer(f"gpu-0{n}", f"10.30.0.{n}", change=change) for n in (1, 2)}
    cluster = declare(vllm_server_pipeline_parallel_size=9)
    found = planned(cluster, states, mode)
    assert lines(found) == []
    assert any("wants 72 GPUs" in str(line) for line in found.warnings)
    assert lines(planned(cluster, states, Mode.UPGRADE))


def same(first: dict[str, Any], second: dict[str, Any], *parts: str) -> dict[str, Any]:
    """``second`` with parts of ``first``."""
    for part in parts:
        folder, _dot, name = part.partition(".")
        if name:
            second[folder] = {**second[folder], name: first[folder][name]}
        else:
            second[folder] = first[folder]
    return second


@pytest.mark.parametrize(
    ("parts", "refused", "warned"),
    [
        pytest.param(
            ("driver", "boot", "machine"), "the same boot id boot-gpu-01, machine id id-gpu-01", "", id="no driver yet"
        ),
        pytest.param(("boot", "machine"), "", "same /etc/machine-id", id="clones of a running virtual machine"),
        pytest.param(("driver.gpus",), "both show GPU-gpu-01-0", "", id="the same cards"),
        pytest.param(("boot.id", "machine"), "", "same /etc/machine-id", id="clones as containers on one kernel"),
        pytest.param(("boot",), "", "", id="containers on one kernel, begun at once"),
        pytest.param(("boot.id",), "", "", id="containers on one kernel"),
        pytest.param(("machine",), "", "gpu-01, gpu-02 have the same /etc/machine-id", id="clones"),
        pytest.param(("boot", "machine", "driver.gpus"), "are one machine", "", id="all of it, said once"),
    ],
)
def test_one_machine_under_two_names(
    parts: tuple[str, ...], refused: str, warned: str, declare: Callable[..., controller.Cluster]
) -> None:
    first, second = answer("gpu-01", "10.30.0.1"), answer("gpu-02", "10.30.0.2")
    if "driver" in parts:
        first["driver"] |= {"loaded_version": None, "gpus": []}
    found = planned(declare(), {"gpu-01": first, "gpu-02": same(first, second, *parts)})
    assert len(lines(found)) == bool(refused)
    assert all(line.startswith("gpu-01 and gpu-02 are one machine") and refused in line for line in lines(found))
    if parts == ("boot", "machine", "driver.gpus"):
        documented("one machine under two names", lines(found)[0])
    if parts == ("machine",):
        documented("machine ids alike alone", str(found.warnings[0]))
    assert len(found.warnings) == bool(warned)
    assert all(warned in str(line) for line in found.warnings)


def test_the_kernel_s_range_for_outgoing_connections(declare: Callable[..., controller.Cluster]) -> None:
    def warned(first: int, reserved: str) -> str:
        shown = answer("gpu-02", "10.30.0.2")
        shown["machine"] |= {"ephemeral_ports": [first, 65535], "reserved_ports": reserved}
        return "\n".join(map(str, planned(declare(), {"gpu-02": shown}).warnings))

    assert warned(32768, "") == ""
    text = warned(20500, "")
    assert text.startswith("gpu-02: net.ipv4.ip_local_port_range (20500 65535) holds ports of Lockstep")
    reserve = text.rpartition("ip_local_reserved_ports=")[2]
    assert reserve == "20000-20999,29600-29699"
    assert warned(20500, reserve) == ""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The same model in two folders, as on two hosts."""
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "llama"}')
        index = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        for shard in (1, 2):
            (folder / f"m-{shard}.safetensors").write_bytes(b"x" * 100)
        (folder / "README.md").write_text(name)
    return tmp_path


def edit(folder: Path, name: str, text: str | None) -> None:
    if text is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param("README.md", "other", [], id="what does not matter"),
        pytest.param(
            "config.json", '{"model_type": "lama!"}', ["is not the model that gpu-01 has: config.json has "], id="config"
        ),
        pytest.param("m-2.safetensors", "x" * 99, ["m-2.safetensors has 99 bytes there, 100 here"], id="a shard cut off"),
        pytest.param(
            "m-2.safetensors", None, ["lacks m-2.safetensors, which its index names", "it lacks m-2.safetensors"],
            id="a shard gone",
        ),
        pytest.param(
            "config.json", None, ["holds neither config.json nor params.json", "it lacks config.json"], id="no config"
        ),
        pytest.param(
            "config.json", '{"model_type"', ["has a config.json that cannot be read or is no JSON", "is not the model"],
            id="half a config",
        ),
    ],
)  # fmt: skip
def test_a_model_has_to_be_the_same_on_all_hosts(
    name: str, text: str | None, expected: list[str], models: Path, declare: Callable[..., controller.Cluster]
) -> None:
    edit(models / "two", name, text)
    answers = {}
    for n, folder in enumerate(("one", "two"), 1):
        found = host_model.model(str(models / folder))
        found["readable_by"] = {}
        answers[f"gpu-0{n}"] = answer(f"gpu-0{n}", f"10.30.0.{n}")
        answers[f"gpu-0{n}"]["preflight"]["model"] = {**found, "path": "/srv/m"}
    result = lines(planned(declare(vllm_server_model="/srv/m"), answers))
    assert len(result) == len(expected)
    if name == "m-2.safetensors" and text:
        documented("a model that differs between hosts", result[0])
    for part, line in zip(expected, result, strict=True):
        assert line.startswith("gpu-02 (replica_a): /srv/m ")
        assert part in line


def with_model(declare: Callable[..., controller.Cluster], model: dict[str, Any], **variables: Any) -> plan.Plan:
    answers = {f"gpu-0{n}": answer(f"gpu-0{n}", f"10.30.0.{n}") for n in (1, 2)}
    for each in answers.values():
        each["preflight"]["model"] = model
    return planned(declare(**{"vllm_server_model": "/srv/m", **variables}), answers)


def test_a_model_that_is_not_there_names_all_hosts_at_once(
    declare: Callable[..., controller.Cluster], tmp_path: Path
) -> None:
    absent = dict(host_model.model(str(tmp_path / "nothing")))
    (line,) = lines(with_model(declare, absent))
    assert line.startswith("gpu-01, gpu-02 (replica_a): there is no /srv/m (vllm_server_model)")
    assert line.endswith("Next: ansible gpu-01:gpu-02 --become -m ansible.builtin.command -a 'ls -lL /srv/m'")
    documented("a model that is not there", line)
    (line,) = lines(with_model(declare, absent, vllm_server_model="/srv/m/"))
    assert "there is no /srv/m/ (vllm_server_model)" in line
    offline = {"vllm_server_model": "owner/model:Q4_K_M", "vllm_server_environment": {"HF_HUB_OFFLINE": "1"}}
    (line,) = lines(with_model(declare, absent, **offline))
    assert "there is no /var/lib/lockstep/engine/.cache/huggingface/hub/models--owner--model" in line
    assert "forbids fetching" in line


@pytest.mark.parametrize(
    ("kind", "free_mib", "refused"),
    [("absent", 900, True), ("absent", 4096, False), ("absent", None, False), ("folder", 900, False)],
)
def test_a_disk_that_is_full(
    kind: str, free_mib: int | None, refused: bool, declare: Callable[..., controller.Cluster], tmp_path: Path
) -> None:
    found = {**host_model.model(str(tmp_path / "nothing")), "kind": kind, "free_mib": free_mib}
    said = lines(with_model(declare, found, vllm_server_model="owner/model", vllm_server_cache="/mnt/data"))
    assert len(said) == (2 if refused else 0), said
    if refused:
        assert said[0].startswith("gpu-01 (replica_a): 900 MiB are free for /mnt/data/hub (vllm_server_cache), too few")


def test_a_model_that_the_engine_cannot_read(models: Path, declare: Callable[..., controller.Cluster]) -> None:
    found = dict(host_model.model(str(models / "one")))
    (line,) = lines(with_model(declare, {**found, "readable_by": {"lockstep": False}}))
    assert line.startswith("gpu-01, gpu-02 (replica_a): the user lockstep, who runs the engine, cannot read /srv/m")
    (warning,) = map(str, with_model(declare, {**found, "readable_by": {"nobody": False}}).warnings)
    assert warning.startswith("gpu-01, gpu-02 (replica_a): /srv/m is not readable for everybody")


def test_a_file_system_that_hangs_is_said(declare: Callable[..., controller.Cluster]) -> None:
    answered = {"error": "TimeoutError: /srv/m cannot be listed within 5 s: its file system hangs"}
    (line,) = lines(with_model(declare, answered))
    assert line.startswith("gpu-01, gpu-02 (replica_a): /srv/m cannot be read: TimeoutError: /srv/m cannot be listed")


def test_the_checksum_is_that_of_the_file(models: Path) -> None:
    content = (models / "one/config.json").read_bytes()
    assert host_model.model(str(models / "one"))["files"]["config.json"] == {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


TESTBED = Path(__file__).parents[4] / "inventories/testbed"


@pytest.mark.parametrize("name", sorted(path.name for path in TESTBED.iterdir() if path.is_dir()))
def test_every_testbed_is_planned_without_a_word(name: str, tmp_path: Path) -> None:
    """The inventories as they are, but for what only a testbed that runs has: its state and its environment."""
    copy = tmp_path / name
    shutil.copytree(TESTBED / name, copy)
    for path in copy.rglob("*.yml"):
        text = re.sub(r"\{\{ lookup\('ansible.builtin.env', .*default='(.*?)'\) \}\}", r"\1", path.read_text())
        text = re.sub(r"(?<=testbed_facts: )>-\n(  .*\n)+", f"{FACTS}\n", text)
        path.write_text(re.sub(r"\{\{ lookup\(.*\}\}", "x" * 64, text))
    cluster = read(copy / "hosts.yml")
    answers = {}
    for host, wanted in cluster.wanted.items():
        if host in cluster.routers:
            continue
        address = wanted.settings["gpu_host_address"]
        shown = json.dumps([{"ifname": "eth0", "addr_info": [{"local": address, "prefixlen": 24}]}])
        answers[host] = answer(host, address, 1, networks=host_machine.networks(shown, ROUTE))
        answers[host]["driver"] |= {"package_version": "550.127.05", "loaded_version": "550.127.05"}
    found = planned(cluster, answers)
    assert lines(found) == []
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("drops", "mode", "said"),
    [(True, Mode.CONVERGE, 1), (False, Mode.CONVERGE, 0), (None, Mode.CONVERGE, 0), (True, Mode.UPGRADE, 1)],
)
def test_a_key_that_clients_have_and_would_lose_is_reported(
    drops: bool | None, mode: Mode, said: int, declare: Callable[..., controller.Cluster]
) -> None:
    preflight = {"taken_ports": {}, "names": {}, **({} if drops is None else {"drops_api_key": drops})}
    found = planned(declare(hosts=1), {"gpu-01": answer("gpu-01", "10.30.0.1", preflight=preflight)}, mode)
    warnings = [str(warning) for warning in found.warnings if "401" in str(warning)]
    assert len(warnings) == said
    assert all("put it into vllm_server_api_keys_previous until they have moved" in line for line in warnings)
    assert lines(found) == []


NEW_KEY, OLD_KEY = "n" * 32, "o" * 32


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"vllm_server_api_key": NEW_KEY, "vllm_server_api_keys_previous": [OLD_KEY]}, []),
        ({"vllm_server_api_keys_previous": [OLD_KEY]}, ["previous keys go beside a key"]),
        (
            {"vllm_server_api_key": NEW_KEY, "vllm_server_api_keys_previous": ["short"]},
            ["vllm_server_api_keys_previous holds a key that is shorter than 32 characters"],
        ),
        (
            {"vllm_server_api_key": NEW_KEY, "vllm_server_api_keys_previous": ["-" + OLD_KEY]},
            ["vLLM takes no key that begins with a dash beside others"],
        ),
    ],
)
def test_previous_keys_go_beside_a_key(
    variables: dict[str, Any], said: list[str], declare: Callable[..., controller.Cluster]
) -> None:
    found = lines(planned(declare(hosts=1, **variables)))
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))
    assert not any(OLD_KEY in line or NEW_KEY in line for line in found)


def test_a_host_is_asked_about_keys_by_their_digests(declare: Callable[..., controller.Cluster]) -> None:
    cluster = declare(hosts=2, vllm_server_api_key=NEW_KEY, vllm_server_api_keys_previous=[OLD_KEY])
    asked = {host: controller._questions(cluster, host, cluster.wanted[host]) for host in ("gpu-01", "gpu-02")}
    assert asked["gpu-01"]["api_keys"] == [hashlib.sha256(key.encode()).hexdigest() for key in (NEW_KEY, OLD_KEY)]
    assert "api_keys" not in asked["gpu-02"]
    assert NEW_KEY not in json.dumps(asked)


def test_another_token_of_ray_is_due_on_every_host_of_a_replica_and_in_one_wave(
    declare: Callable[..., controller.Cluster],
) -> None:
    """Ray's token is one for a cluster: a replica gets another one whole, in its own wave, with no client on it."""
    before, after = (declare(hosts=2, ray_node_token=letter * 32) for letter in "ab")
    for host in ("gpu-01", "gpu-02"):
        changed = {
            role
            for role in before.wanted[host].inputs
            if before.wanted[host].inputs[role] != after.wanted[host].inputs[role]
        }
        assert changed == {"ray_node"}
    manifest = {role: {"current": role != "ray_node", "drifted": []} for role in after.wanted["gpu-01"].inputs}
    answers = {f"gpu-0{n}": answer(f"gpu-0{n}", f"10.30.0.{n}", manifest=manifest) for n in (1, 2)}
    found = planned(after, answers)
    assert [wave.hosts for wave in found.waves] == [("gpu-01", "gpu-02")]
