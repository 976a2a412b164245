"""A roll under load: two replicas behind the router, requests sent throughout, each of them once."""

from __future__ import annotations

import pytest

from tests.e2e.lab import Lab, difference
from tests.e2e.rolls import (
    HEADS,
    REPLICAS,
    ROUTER,
    UPGRADE,
    nothing_lost,
    other,
    roll,
    serving,
    to,
    verified,
)

WITHOUT = """
mkdir -p /srv/short
curl -sSf http://mirror.testbed.test/nvidia/debian12/x86_64/Packages.gz | gunzip |
    awk 'BEGIN {{ RS = ""; ORS = "\\n\\n" }} index($0, "{version}") == 0' > /srv/short/Packages
grep -q ^Version: /srv/short/Packages
"""


@pytest.mark.long  # `make test` has the roll of test_roll_controllers, whose controller dies: it loses nothing either
@pytest.mark.parametrize("playbook", [UPGRADE, "site.yml"])
def test_a_roll_under_load_loses_nothing(pair: Lab, playbook: str) -> None:
    new = other(serving(pair)["a1"])
    rolled = roll(pair, new, playbook=playbook)
    assert rolled.play.rc == 0, rolled.play.explained()
    nothing_lost(rolled)
    for host in HEADS:
        verified(pair, host, new)
    outages = rolled.log.outages(rolled.load.ended)
    assert sorted(replica for replica, _out, _back in outages) == sorted(REPLICAS), "each replica was out once"

    before = pair.snapshot([*HEADS, ROUTER])
    again = pair.play(playbook, extra=to(new))
    assert again.rc == 0, again.explained()
    assert again.changed() == {}
    assert difference(before, pair.snapshot([*HEADS, ROUTER])) == {}


def test_check_mode_shows_the_roll_and_changes_nothing(pair: Lab) -> None:
    new = other(serving(pair)["a1"])
    before = pair.snapshot([*HEADS, ROUTER])
    rolled = roll(pair, new, "--check", "--diff")
    assert rolled.play.rc == 0, rolled.play.explained()
    for fragment in (new, *REPLICAS):
        assert fragment in rolled.play.text, f"the plan does not show {fragment}"
    assert difference(before, pair.snapshot([*HEADS, ROUTER])) == {}
    nothing_lost(rolled)
    assert rolled.log.changes == ()


@pytest.mark.long
def test_a_target_that_one_host_cannot_get_is_refused_before_anything_changes(pair: Lab) -> None:
    new = other(serving(pair)["a1"])
    pair.on("b1", WITHOUT.format(version=new))
    before = pair.snapshot([*HEADS, ROUTER])
    rolled = roll(pair, new, overlay="{all: {hosts: {b1: {nvidia_driver_repository_url: 'file:///srv/short'}}}}")
    assert rolled.play.rc != 0, rolled.play.explained()
    message = " ".join(rolled.play.failures())
    for fragment in ("b1", new, "on offer", "before anything was changed"):
        assert fragment in message, f"the refusal does not name {fragment!r}: {message}"
    assert difference(before, pair.snapshot([*HEADS, ROUTER])) == {}
    nothing_lost(rolled)
    assert rolled.log.changes == ()
