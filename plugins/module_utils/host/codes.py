"""What became of a question to a host."""

from __future__ import annotations

from ..core.codes import Code


class AnswerCode(Code):
    """Why a host gave no answer that can be used."""

    UNREACHABLE = "unreachable"
    NO_ANSWER = "no_answer"
    TOO_LARGE = "too_large"
    FAILED = "failed"
    BAD_ANSWER = "bad_answer"
