"""Every field of nvidia-smi's XML, on every branch that was read, has a decision, and the code has the same."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import smi_fields
from ansible_collections.lockstep.vllm.plugins.module_utils.driver.readings import Absence
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.codes import Code

ROOT = Path(__file__).parents[4]
LISTS = sorted((ROOT / "tests/unit/fixtures/nvidia-smi/fields").glob("*.txt"))
ROW = re.compile(r"\| `([^`]+)` \| (fails|warns|compared|must answer|not checked)([^|]*)\|")
DECISIONS = {
    match[1]: (match[2], set(re.findall(r"`([a-z_]+)`", match[3].split(" where ")[0])))
    for line in (ROOT / "docs/reference/nvidia-smi.md").read_text().splitlines()
    if (match := ROW.match(line))
}


def fields(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def decision(field: str) -> str | None:
    """The row of a field: its own, else the longest pattern that fits."""
    fitting = [pattern for pattern in DECISIONS if pattern == field or fnmatch.fnmatchcase(field, pattern)]
    return max(fitting, key=lambda pattern: (pattern == field, len(pattern)), default=None)


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_every_field_of_every_branch_has_a_decision(path: Path) -> None:
    assert len(fields(path)) > 100
    assert [field for field in fields(path) if decision(field) is None] == []


def test_no_row_is_about_a_field_that_no_branch_has() -> None:
    known = {decision(field) for path in LISTS for field in fields(path)}
    assert sorted(set(DECISIONS) - known) == []


def test_the_document_and_the_code_decide_alike() -> None:
    documented = {field: codes for field, (kind, codes) in DECISIONS.items() if kind in ("fails", "warns")}
    coded = {
        field: {rule.code for rule in rules.values() if rule is not None} for field, rules in smi_fields.RULES.items()
    }
    coded |= {pair[1]: {rule.code} for pair, rule in smi_fields.PENDING.items()}
    assert documented == coded
    for field, (kind, _codes) in DECISIONS.items():
        warns_only = all(
            rule is None or rule.severity == "warn"
            for rule in (
                *smi_fields.RULES.get(field, {}).values(),
                *(r for p, r in smi_fields.PENDING.items() if p[1] == field),
            )
        )
        if kind in ("fails", "warns"):
            assert (kind == "warns") == warns_only, field


@pytest.mark.parametrize(
    ("inside", "named"),
    [
        ("<ecc_errors><bank_repair_pending>Yes</bank_repair_pending></ecc_errors>", "ecc_errors/bank_repair_pending"),
        ("<fabric><health><link_degraded>True</link_degraded></health></fabric>", "fabric/health/link_degraded"),
        ("<ecc_errors><bank_repair_pending>No</bank_repair_pending></ecc_errors>", None),
        ("<ecc_errors><bank_repair_pending>N/A</bank_repair_pending></ecc_errors>", None),
        ("<capabilities><egm>Yes</egm></capabilities>", None),
        ("<gpu_operation_mode><pending_gom>Compute</pending_gom></gpu_operation_mode>", None),
    ],
)
def test_a_field_that_no_branch_had_and_that_asks_for_something_is_reported(inside: str, named: str | None) -> None:
    flags = smi_fields.flags(ElementTree.fromstring(f"<gpu>{inside}</gpu>"))
    assert [(flag.field, flag.decision.code, flag.decision.severity) for flag in flags] == (
        [(named, "field_unknown", "warn")] if named else []
    )


def test_a_field_that_is_checked_is_reported_by_its_row_alone() -> None:
    inside = "<remapped_rows><remapped_row_pending>Yes</remapped_row_pending></remapped_rows>"
    flags = smi_fields.flags(ElementTree.fromstring(f"<gpu>{inside}</gpu>"))
    assert [flag.decision.code for flag in flags] == ["row_remap_pending"]


def test_every_code_is_one_of_the_driver_gate_s() -> None:
    rules = [rule for rules in smi_fields.RULES.values() for rule in rules.values() if rule is not None]
    assert {rule.code for rule in (*rules, *smi_fields.PENDING.values())} <= {str(code) for code in Code}
    for _kind, codes in DECISIONS.values():
        assert codes <= {str(code) for code in Code}


def test_a_field_that_a_verdict_depends_on_must_be_answered() -> None:
    for path in LISTS:
        for field in fields(path):
            kind = DECISIONS[decision(field) or ""][0]
            if kind != "not checked" and not field.startswith("fabric/cl"):
                assert smi_fields.matters(field), field


def gpu(**fields: str) -> ElementTree.Element:
    """A GPU of these fields, ``__`` for ``/``."""
    root = ElementTree.Element("gpu")
    for name, value in fields.items():
        place = root
        for part in name.split("__"):
            found = place.find(part)
            place = found if found is not None else ElementTree.SubElement(place, part)
        place.text = value
    return root


@pytest.mark.parametrize(
    ("given", "codes"),
    [
        ({"gpu_recovery_action": "None"}, []),
        ({"gpu_recovery_action": "N/A"}, []),
        ({"gpu_recovery_action": "Reset"}, ["recovery_action"]),
        ({"gpu_recovery_action": "Drain and Reset"}, ["recovery_action"]),
        ({"gpu_recovery_action": "Something of tomorrow"}, ["recovery_action"]),
        ({"gpu_reset_status__reset_required": "Requested functionality has been deprecated"}, []),
        ({"gpu_reset_status__reset_required": "Yes"}, ["recovery_action"]),
        ({"mig_mode__current_mig": "Enabled", "mig_mode__pending_mig": "Enabled"}, ["mig_on"]),
        ({"mig_mode__current_mig": "Disabled", "mig_mode__pending_mig": "Enabled"}, ["mig_on"]),
        ({"mig_mode__current_mig": "N/A", "mig_mode__pending_mig": "N/A"}, []),
        ({"ecc_mode__current_ecc": "Enabled", "ecc_mode__pending_ecc": "Disabled"}, ["ecc_off"]),
        ({"ecc_mode__current_ecc": "Disabled", "ecc_mode__pending_ecc": "Disabled"}, ["ecc_off"]),
        ({"retired_pages__pending_blacklist": "Yes"}, ["page_retirement_pending"]),
        ({"ecc_errors__unrepairable_memory": "Yes"}, ["memory_unrepairable"]),
        ({"compute_mode": "Prohibited"}, ["compute_mode"]),
        ({"compute_mode": "Default"}, []),
        ({"persistence_mode": "Unknown Error"}, []),
    ],
)
def test_flags(given: dict[str, str], codes: list[str]) -> None:
    assert [flag.decision.code for flag in smi_fields.flags(gpu(**given))] == codes


def test_what_is_unread_is_reported_by_field() -> None:
    element = gpu(performance_state="Unknown Error", fan_speed="N/A", ecc_mode__current_ecc="GPU is lost", uuid="GPU-1")
    found = smi_fields.unread(element)
    assert [(one.field, one.absence) for one in found] == [
        ("performance_state", Absence.UNREADABLE),
        ("ecc_mode/current_ecc", Absence.LOST),
    ]
