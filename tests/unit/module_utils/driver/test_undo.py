"""What undoing a driver change takes, by what was changed."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import undo as driver_undo
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.change_record import Before, Driver
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.undo import UndoStep

OLD, NEW = "550.90.07", "550.127.05"
TARGET: Driver = {"version": OLD, "source": "nvidia", "flavor": "open"}
PINS = "Package: libcuda1\n"


def package(version: str, hold: bool = True, broken: bool = False) -> dict[str, Any]:
    return {"version": f"{version}-1", "hold": hold, "broken": broken}


WHOLE = {"libcuda1": package(OLD), "nvidia-kernel-open-dkms": package(OLD), "nvidia-modprobe": package("560.35.05")}
WAS = driver_undo.before(WHOLE, PINS)


def needed(
    packages: dict[str, Any], *, was: Before | None = WAS, loaded: str | None = OLD, pins: str | None = PINS,
    interrupted: bool = False, source: str = "nvidia",
) -> dict[UndoStep, str]:  # fmt: skip
    now: Any = {"packages": packages, "loaded_version": loaded, "dpkg_interrupted": interrupted}
    return driver_undo.undo({**TARGET, "source": source}, was, now, pins)


@pytest.mark.parametrize(
    ("case", "steps"),
    [
        pytest.param({"packages": WHOLE}, [], id="nothing was changed"),
        pytest.param({"packages": WHOLE, "was": None}, [], id="nothing was changed, and an older record"),
        pytest.param({"packages": WHOLE, "was": driver_undo.before(WHOLE, None)}, [], id="was not pinned before"),
        pytest.param({"packages": WHOLE, "loaded": NEW}, ["load"], id="another module was loaded"),
        pytest.param({"packages": WHOLE, "loaded": None}, ["load"], id="no module is loaded"),
        pytest.param({"packages": {**WHOLE, "libcuda1": package(OLD, hold=False)}}, ["hold"], id="a hold is gone"),
        pytest.param({"packages": WHOLE, "pins": "Package: other\n"}, ["hold"], id="pinned to the new driver"),
        pytest.param({"packages": WHOLE, "pins": None}, ["hold"], id="no longer pinned"),
        pytest.param({"packages": WHOLE, "interrupted": True}, ["repair"], id="dpkg was stopped before ours"),
        pytest.param(
            {"packages": {**WHOLE, "libcuda1": package(OLD, broken=True)}, "interrupted": True},
            ["install"],
            id="ours are half-way, in the old version",
        ),
        pytest.param({"packages": {name: package(NEW) for name in WHOLE}}, ["install"], id="installed, not loaded"),
        pytest.param(
            {"packages": {name: package(NEW) for name in WHOLE}, "loaded": NEW}, ["install", "load"], id="and loaded"
        ),
        pytest.param({"packages": {**WHOLE, "libcuda1": package(NEW)}}, ["install"], id="one of them was installed"),
        pytest.param({"packages": {}}, ["install"], id="all are gone"),
        pytest.param(
            {"packages": {name: WHOLE[name] for name in ("libcuda1", "nvidia-modprobe")}}, ["install"], id="one is gone"
        ),
        pytest.param(
            {"packages": {**WHOLE, "nvidia-modprobe": package("565.57.01")}}, ["install"], id="a tool was exchanged"
        ),
        pytest.param(
            {"packages": WHOLE, "was": driver_undo.before({"libcuda1": package("535.0.0")}, PINS)},
            [],
            id="the change had found another driver than the last known good one",
        ),
        pytest.param({"packages": {}, "source": "verify", "pins": None}, [], id="the platform's own packages"),
        pytest.param({"packages": {}, "source": "verify", "loaded": NEW}, ["load"], id="the platform's own, loaded"),
    ],
)
def test_undoing_takes(case: dict[str, Any], steps: list[str]) -> None:
    found = needed(**case)
    assert [step.value for step in found] == steps
    assert all(found.values()), "a step without its reason"


def test_reasons_name_what_differs() -> None:
    steps = needed({**WHOLE, "nvidia-modprobe": package("565.57.01")}, loaded=None)
    assert steps == {
        UndoStep.INSTALL: "no longer as before the change: nvidia-modprobe",
        UndoStep.LOAD: "driver absent is loaded, 550.90.07 was",
    }
