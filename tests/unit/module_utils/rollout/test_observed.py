"""What a plan reads of a host's answer: a value that means nothing is that host's error, and stops no other."""

from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import Observed


@pytest.mark.parametrize(
    ("address", "prefix", "says"),
    [
        ("10.0.0.256", 24, "10.0.0.256"),
        ("\x1b[2J", 24, r"\x1b[2J"),
        ("10.0.0.1", 99, "99"),
        ("", 24, "Address cannot be empty"),
    ],
)
def test_an_address_that_is_none_is_the_host_s_error(address: str, prefix: int, says: str) -> None:
    found = Observed.parse({"networks": {"eth0": [{"address": address, "prefix": prefix, "metric": 0}]}}, None, True)
    assert found.state is None
    assert found.error is not None
    assert found.error.startswith("its answer cannot be used: ")
    assert says in found.error
    assert found.error.isprintable()
