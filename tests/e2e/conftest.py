"""A testbed for the stories. `LOCKSTEP_TESTBED` names it; it is ended afterwards unless `LOCKSTEP_KEEP_TESTBED` is set."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.lab import ROOT, Lab
from tests.e2e.rolls import testbed_four

# What wants bare hosts comes first, then what makes a cluster of them, then what leaves it serving; last what builds its own.
ORDER = ("test_refusals", "test_site", "test_status", "test_recovery", "test_gates")
LAST = (
    "test_roll",
    "test_roll_controllers",
    "test_roll_bake",
    "test_roll_stops",
    "test_roll_faults",
    "test_layouts",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order this folder's stories, behind every test that needs no testbed."""

    def place(item: pytest.Item) -> int:
        if item.path.parent.name != "e2e":
            return -1
        if item.path.stem in LAST:
            return len(ORDER) + 1 + LAST.index(item.path.stem)
        return ORDER.index(item.path.stem) if item.path.stem in ORDER else len(ORDER)

    items.sort(key=place)


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
    with testbed_four("testbed_pair") as lab:
        yield lab
