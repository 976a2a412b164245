"""The codes that each gate may give: what its module's documentation lists, and every verdict of the tests is one of."""

from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.module_utils.gates.codes import Code


def _since(first: Code, last: Code) -> frozenset[Code]:
    """The codes from ``first`` to ``last``, in the order in which they are written above."""
    written = list(Code)
    return frozenset(written[written.index(first) : written.index(last) + 1])


ALWAYS = frozenset({Code.OK, Code.COULD_NOT_RUN})
RANK_GROUP = _since(Code.NO_GPUS, Code.RAY_FAILED)
OF_GATE = {
    "driver": frozenset({Code.OK}) | _since(Code.PACKAGE_MISSING, Code.KNOWN_BAD),
    "network": ALWAYS | _since(Code.NAMES, Code.PROBE_FAILED),
    "nccl": ALWAYS | RANK_GROUP | _since(Code.WRONG_ARITHMETIC, Code.COLLECTIVE_ERROR),
    "graph": ALWAYS | RANK_GROUP | _since(Code.EAGER_BAD, Code.RELEASE_ERRORS),
}
"""The codes that each gate may give."""
