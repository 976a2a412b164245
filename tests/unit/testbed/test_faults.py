"""Faults: what may be set, and when one that is set strikes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from testbed.lib import fault_catalog
from testbed.lib.errors import UsageError
from testbed.lib.image import FAULT_FILES

SOURCE = FAULT_FILES.parent


def load(name: str) -> ModuleType:
    """A module of the testbed's platform, which is not installed here."""
    spec = importlib.util.spec_from_file_location(f"lockstep_testbed.{name}", SOURCE / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fault_files = load("fault_files")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("no_such", None, "no fault no_such"),
        ("wrong_module_loads", None, "needs a value, such as 550.54.15"),
        ("wrong_module_loads", "latest", "'latest' is not a value"),
        ("apt_lock_held", "1", "takes no value"),
        ("port_blocked", "ssh", "'ssh' is not a value"),
        ("disk_full", "opt", "'opt' is not a value"),
        ("slow_link", "-5", "'-5' is not a value"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(name: str, value: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fault_catalog.fault_text(name, value, None, False)


def test_a_condition_must_be_a_driver_version() -> None:
    with pytest.raises(UsageError, match="--when-driver new"):
        fault_catalog.fault_text("capture_hangs", None, "new", False)


@pytest.mark.parametrize("kind", fault_catalog.KINDS.values(), ids=lambda kind: kind.name)
def test_every_fault_is_described_and_takes_its_own_example(kind: fault_catalog.Kind) -> None:
    assert kind.effect
    text = fault_catalog.fault_text(kind.name, kind.example or None, None, False)
    assert fault_files.parse(kind.name, text).value == (kind.example or kind.default)
    if not kind.required:
        assert (
            fault_files.parse(kind.name, fault_catalog.fault_text(kind.name, None, None, False)).value == kind.default
        )


@pytest.mark.parametrize(
    ("when", "only_multihost", "driver", "multihost", "strikes"),
    [
        (None, False, None, False, True),
        (None, False, "550.90.07", True, True),
        ("550.90.07", False, "550.90.07", False, True),
        ("550.90.07", False, "550.127.05", False, False),
        ("550.90.07", False, None, False, False),
        (None, True, None, False, False),
        (None, True, None, True, True),
        ("550.90.07", True, "550.90.07", False, False),
        ("550.90.07", True, "550.90.07", True, True),
    ],
)
def test_when_a_fault_strikes(
    when: str | None, only_multihost: bool, driver: str | None, multihost: bool, strikes: bool
) -> None:
    assert fault_files.Fault("x", "", when, only_multihost).applies(driver, multihost) is strikes


def test_replay_across_hosts_spares_a_single_host() -> None:
    text = fault_catalog.fault_text("replay_hangs_across_hosts", None, None, False)
    assert json.loads(text)["only_multihost"] is True


def test_find_reads_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_files, "DIRECTORY", str(tmp_path))
    monkeypatch.setattr(fault_files, "LOADED_DRIVER", str(tmp_path / "version"))
    assert fault_files.find("xid") is None
    (tmp_path / "xid").write_text(fault_catalog.fault_text("xid", "48", "550.90.07", False))
    assert fault_files.find("xid") is None
    (tmp_path / "version").write_text("550.90.07\n")
    assert fault_files.find("xid").value == "48"
    assert fault_files.find("xid", driver="550.127.05") is None


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_file_is_a_fault_too(text: str) -> None:
    assert fault_files.parse("x", text).applies(None, False)


def test_a_broken_file_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_files, "DIRECTORY", str(tmp_path))
    (tmp_path / "xid").write_text("{")
    assert fault_files.find("xid") is None
