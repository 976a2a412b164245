"""GPUs and links, assessed by the cards beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver.health import GpuHealth, Health, Links
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import driver_gpus
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.driver_gpus import Machine

UP, DOWN = True, False
SXM, NVL, V100 = "NVIDIA H100 80GB HBM3", "NVIDIA H100 NVL", "Tesla V100-SXM2-32GB"


def links(model: str, *ups: Sequence[bool]) -> tuple[Links, ...]:
    rates = (tuple(26.562 if one else 0.0 for one in up) for up in ups)
    return tuple(Links(index, model, f"GPU-{index}", each) for index, each in enumerate(rates))


@pytest.mark.parametrize(
    ("seen", "nvswitches", "down"),
    [
        pytest.param(links(NVL, [UP, UP, DOWN], [UP, UP, DOWN]), 0, [], id="bridged, some unused on each"),
        pytest.param(links(NVL, [UP, UP, DOWN], [UP, DOWN, DOWN]), 0, ["NVLink 1 down"], id="one fewer than its sibling"),
        pytest.param(links(V100, [UP, DOWN, UP], [UP, UP, DOWN]), 0, [], id="as many, of other numbers (a cube mesh)"),
        pytest.param(links(SXM, [UP, DOWN], [UP, DOWN]), 4, ["NVLink 1 down", "NVLink 1 down"], id="behind NVSwitches every link"),
        pytest.param(links(SXM, [UP] * 18, [UP] * 18), 4, [], id="all up"),
        pytest.param(links(SXM, [UP] * 18, []), 4, ["NVLink absent down"], id="none where its sibling has some"),
        pytest.param(links(SXM, [UP] * 18, []), 0, ["NVLink absent down"], id="the same without NVSwitches"),
        pytest.param(links(V100, [UP, DOWN, UP]), 0, ["NVLink 1 down"], id="alone, nothing to compare with"),
        pytest.param((*links(SXM, [UP, UP]), *links("Tesla T4", [])), 0, [], id="a card of another model that has none"),
        pytest.param((*links(SXM, [UP, UP]), *links(SXM, [])), 4, ["NVLink absent down"], id="behind NVSwitches none"),
        pytest.param(links(SXM, [DOWN] * 3, [DOWN] * 3), 0, [], id="a machine without NVLink"),
        pytest.param(links(SXM, [], []), 0, [], id="cards without NVLink"),
    ],
)  # fmt: skip
def test_links(seen: tuple[Links, ...], nvswitches: int, down: list[str]) -> None:
    found = list(driver_gpus.findings(Health(nvlink=seen), Machine("a1", nvswitches)))
    assert [finding.code for finding in found] == ["nvlink_down"] * len(down)
    for finding, words in zip(found, down, strict=True):
        assert words in finding.cause


@pytest.mark.parametrize(
    ("seen", "nvswitches", "severities"),
    [
        pytest.param(links(NVL, [UP, UP], [UP, UP], [DOWN, DOWN]), 0, ["warn"], id="the third card has no partner"),
        pytest.param(links(NVL, [UP, UP], [UP, UP], []), 0, ["warn"], id="nor does it say anything of links"),
        pytest.param(links(NVL, *([UP, UP],) * 2, *([DOWN, DOWN],) * 2), 0, ["fail", "fail"], id="a bridge that failed takes two"),
        pytest.param(links(NVL, [UP, UP], [UP, DOWN], [DOWN, DOWN]), 0, ["fail", "warn"], id="and another that is half up"),
        pytest.param(links(SXM, [UP, UP], [UP, UP], [DOWN, DOWN]), 4, ["fail"], id="behind NVSwitches every card is joined"),
    ],
)  # fmt: skip
def test_a_card_without_a_bridge_is_no_fault(seen: tuple[Links, ...], nvswitches: int, severities: list[str]) -> None:
    found = list(driver_gpus.findings(Health(nvlink=seen), Machine("a1", nvswitches)))
    assert [finding.severity for finding in found] == severities
    assert {finding.code for finding in found} == {"nvlink_down"}


def test_a_card_that_reports_a_fabric_is_behind_nvswitches_that_pci_does_not_show() -> None:
    """HGX B200, and GPUs passed through to a virtual machine."""
    cards = (GpuHealth("19:00.0", fabric_state="Completed", fabric_status="Success"),)
    found = driver_gpus.findings(Health(cards, links(SXM, [UP, DOWN], [UP, DOWN])), Machine("a1"))
    assert [finding.code for finding in found] == ["nvlink_down", "nvlink_down"]


CARD = GpuHealth("00000000:19:00.0", model=SXM, performance_state="P0", pcie_width=16, pcie_width_max=16)


@pytest.mark.parametrize(
    ("widths", "stated", "severities"),
    [
        pytest.param([16, 16], None, [], id="full"),
        pytest.param([8], None, ["warn"], id="alone and narrow"),
        pytest.param([8, 8], None, ["warn", "warn"], id="alike and narrow"),
        pytest.param([8, 16], None, ["fail"], id="narrower than its sibling"),
        pytest.param([8, 8], 8, [], id="as stated"),
        pytest.param([4, 8], 8, ["fail"], id="below what is stated"),
        pytest.param([16], 8, [], id="above what is stated"),
        pytest.param([None], None, [], id="not reported"),
    ],
)
def test_pcie_width(widths: list[int | None], stated: int | None, severities: list[str]) -> None:
    cards = tuple(dataclasses.replace(CARD, index=index, pcie_width=width) for index, width in enumerate(widths))
    found = list(driver_gpus.findings(Health(cards), Machine("a1", 0, stated)))
    assert [finding.severity for finding in found] == severities
    assert {finding.code for finding in found} <= {"pcie_width"}


def test_cards_of_two_models_are_not_compared() -> None:
    other = dataclasses.replace(CARD, index=1, model="NVIDIA A10G", pcie_width=8, pcie_width_max=16)
    assert [finding.severity for finding in driver_gpus.findings(Health((CARD, other)), Machine("a1"))] == ["warn"]
