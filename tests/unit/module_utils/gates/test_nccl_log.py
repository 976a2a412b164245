"""What NCCL's log says that it used."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import nccl_log
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.nccl_log import Hint, Said

LOGS = Path(__file__).parents[2] / "fixtures" / "nccl"
ROCE = tuple(f"mlx5_{n}" for n in (0, 1, 2, 5, 6, 7, 8, 11))


def said(name: str) -> Said:
    return nccl_log.parse((LOGS / f"{name}.log").read_text())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2.27.3-efa", Said(("Libfabric",), direct=4, channels=2, nvls_channels=0, hosts=4)),
        (
            "2.27.3-efa-to-sockets",
            Said(("Socket",), interfaces=("eth0",), staged=4, channels=2, nvls_channels=0, hosts=4,
                hints=(Hint.NO_DEVICE, Hint.PLUGIN_FAILED),
            ),
        ),
        (
            "2.27.5-roce",  # sets NCCL_CUMEM_ENABLE to 0
            Said(("IB",), ROCE, direct=4, hosts=2, chosen=True, hints=(Hint.MNNVL_DISABLED,)),
        ),
        (
            "2.28.9-one-rank",
            Said(("Socket",), interfaces=("lo",), channels=64, nvls_channels=0, hosts=1,
                hints=(Hint.NO_DEVICE, Hint.NO_PLUGIN),
            ),
        ),
        ("2.28-nvls", Said(channels=24, nvls_channels=16)),
        ("2.30.7-mnnvl", Said(("IB",), across_nvlink=1, mnnvl=True, hosts=1)),
    ],
)  # fmt: skip
def test_what_nccl_said(name: str, expected: Said) -> None:
    assert said(name) == expected


@pytest.mark.parametrize(
    ("name", "gdr", "network"),
    [
        ("2.27.3-efa", True, True),
        ("2.27.3-efa-to-sockets", False, True),
        ("2.28-nvls", None, True),
        ("2.30.7-mnnvl", None, False),
    ],
)
def test_what_follows_from_it(name: str, gdr: bool | None, network: bool) -> None:
    assert (said(name).gdr, said(name).needs_network) == (gdr, network)


def test_a_device_that_reaches_gpus_directly_is_known_by_the_name_that_the_host_has() -> None:
    """ConnectX-8 on GB300, NCCL 2.29.3, as dranet's example of OCI's BM.GPU.GB300.4 quotes it."""
    found = nccl_log.parse(
        "NCCL INFO NET/IB : Using [0]rdma_vf_rail0_dma:1/RoCE [1]rdma_vf_rail1_dma:1/RoCE [2]rdma_vf_rail2_dma:1/RoCE [RO]; OOB"
    )
    assert found.devices == ("rdma_vf_rail0", "rdma_vf_rail1", "rdma_vf_rail2")


@pytest.mark.parametrize(
    ("setting", "hints"),
    [
        ("NCCL_MNNVL_ENABLE set by environment to 0.", (Hint.MNNVL_DISABLED,)),
        ("NCCL_CUMEM_ENABLE set by environment to 0.", (Hint.MNNVL_DISABLED,)),
        ("NCCL_P2P_DISABLE set by environment to 1.", (Hint.MNNVL_DISABLED,)),
        ("NCCL_MNNVL_ENABLE set by environment to 1.", ()),
        ("NCCL_MNNVL_ENABLE set by environment to 2.", ()),
        ("NCCL_P2P_DISABLE set by environment to 0.", ()),
    ],
)
def test_nvlink_between_hosts_that_a_variable_forbids(setting: str, hints: tuple[Hint, ...]) -> None:
    assert nccl_log.parse(f"a1:1:1 [0] NCCL INFO {setting}").hints == hints


def test_ranks_that_differ_are_reported() -> None:
    text = (LOGS / "2.27.5-roce.log").read_text() + (LOGS / "2.27.3-efa-to-sockets.log").read_text()
    assert nccl_log.parse(text).networks == ("IB", "Socket")


@pytest.mark.parametrize(
    "line",
    ["NCCL INFO NCCL_IB_DISABLE set by environment to 1.", "NCCL INFO NCCL_NET set by environment to Socket"],
)
def test_a_variable_that_forbids_it(line: str) -> None:
    assert nccl_log.parse(f"node-1:1:1 [0] {line}").hints == (Hint.DISABLED,)
    assert nccl_log.parse("node-1:1:1 [0] NCCL INFO NCCL_IB_DISABLE set by environment to 0.").hints == ()


def test_a_second_port_is_named() -> None:
    line = "a1:1:1 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB/SHARP [1]mlx5_0:2/RoCE [RO]; OOB eth0:10.0.0.1<0>"
    assert nccl_log.parse(line).devices == ("mlx5_0", "mlx5_0:2")


@pytest.mark.parametrize("text", ["", "no log of NCCL\n", "a1:1:1 [0] NCCL INFO Channel\nNCCL INFO comm 0x1 rank"])
def test_anything_else_says_nothing(text: str) -> None:
    assert nccl_log.parse(text) == Said()


def test_a_users_log_is_shown_as_names_and_numbers_alone() -> None:
    hostile = (
        "NCCL INFO Using network \x1b[31mred\nNCCL INFO Using network " + "x" * 1000 + "\nNCCL INFO NET/Socket : Using "
    )
    hostile += "".join(f"[{n}]eth{n}:10.0.0.1<0> " for n in range(500))
    found = nccl_log.parse(hostile)
    assert found.networks == ("x" * 40,)
    assert len(found.interfaces) == 64
