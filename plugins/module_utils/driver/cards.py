"""Names of GPU cards: whether one is the card that somebody names."""

from __future__ import annotations

import re


def is_card(words: str, name: str) -> bool:
    """Whether ``words`` are whole words of a card's ``name``, in any case.

    ``L4`` is not ``NVIDIA L40S`` and ``H200`` is not ``NVIDIA GH200 480GB``; ``A100`` is ``NVIDIA A100-SXM4-80GB``, as a word
    ends where neither a letter nor a digit follows.
    """
    wanted = r"\s+".join(map(re.escape, words.split()))
    return bool(wanted) and re.search(rf"(?<![a-z0-9]){wanted}(?![a-z0-9])", name, re.IGNORECASE) is not None
