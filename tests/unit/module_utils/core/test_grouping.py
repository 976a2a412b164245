"""What is alike comes together, in the order in which it came."""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.module_utils.core.grouping import grouped


def test_both_keep_their_order() -> None:
    found = grouped([("b", 2), ("a", 1), ("b", 1)])
    assert list(found.items()) == [("b", [2, 1]), ("a", [1])]
