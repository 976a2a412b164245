"""A testbed for the tests. `LOCKSTEP_TESTBED` names it; it is removed afterwards unless `LOCKSTEP_KEEP_TESTBED` is set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import ROOT, Lab
from tests.e2e.rolls import testbed_four

# A testbed with a cluster on it takes minutes to make, so files share one and go on from what the file before them left.
ORDER = (
    # one replica of two hosts (fixture `lab`)
    "test_refusals",  # wants bare hosts, and leaves them bare
    "test_preflight_packages",  # the same
    "test_lost_host",  # the same
    "test_site",  # makes the cluster of them, and leaves it serving, as all that follow
    "test_status",
    "test_upgrade_lockstep",
    "test_outsider",
    "test_user",
    "test_encryption",  # turns it on and off again
    "test_models",
    "test_prometheus",
    "test_recovery",
    "test_dead_host",
    "test_gates",
    "test_ladder",
    "test_examples",  # on bare hosts again, and leaves them bare
    "test_air_gap",  # the same
    "test_collection_only",  # the same
    "test_cgroups",  # makes and removes testbeds of its own
    "test_packet_filter",  # the same
    # two replicas of one host behind the router (fixture `pair`): each makes them serve, and leaves them serving
    "test_roll_across_hosts",
    "test_roll",
    "test_roll_controllers",
    "test_roll_bake",
    "test_roll_rollback",
    "test_roll_model",
    "test_roll_runtime",
    "test_roll_rotate",
    "test_roll_remove",
    "test_roll_stops",
    "test_roll_faults",
    "test_layouts",  # makes a testbed of its own in place of those
    "test_commands",  # the same, and removes at its end what all testbeds share
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of this folder in ORDER, behind all that need no testbed."""

    here = {item: item.path.stem for item in items if item.path.parent == Path(__file__).parent}
    if unknown := sorted({*here.values()} - {*ORDER}):
        raise pytest.UsageError(f"{__file__}: no place in ORDER for {', '.join(unknown)}")
    items.sort(key=lambda item: ORDER.index(here[item]) if item in here else -1)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The testbed with one replica of two hosts, up, and nothing on it that an earlier session left."""
    names = ("LOCKSTEP_TESTBED", "LOCKSTEP_TESTBED_PREFIX")
    lab = Lab(
        inventory=ROOT / "inventories/testbed/base",
        environment={name: os.environ[name] for name in names if os.environ.get(name)},
    )
    keep = bool(os.environ.get("LOCKSTEP_KEEP_TESTBED"))
    if not keep:
        lab.testbed("down")
    lab.testbed("up", "--hosts", "2", deadline=900)
    yield lab
    if not keep:
        lab.testbed("down")


@pytest.fixture(scope="session")
def pair() -> Iterator[Lab]:
    """The testbed with two replicas of one host behind the router, bare."""
    with testbed_four("pair") as lab:
        yield lab
