"""The private words that were replaced by the field's terms stay out of tracked files."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SEARCHED = (
    "plugins",
    "roles",
    "playbooks",
    "molecule",
    "docs",
    "testbed",
    "tests",
    "tools",
    "README.md",
    "CONTRIBUTING.md",
    "Makefile",
)
EXCEPTED = ("docs/evidence", "tests/unit/fixtures", "tests/unit/test_words.py")

REPLACED = {
    r"\bput(s|ting)?( (it|them|this|that))? back\b|\bput_back\b": "roll back",
    r"\btake(n|s)?_out\b": "drain",
    r"rejoin": "enable",
    r"\b(left|leave|leaves|leaving)[ _]alone\b": "skipped",
    r"(\b|_)gangs?(\b|_)": "rank group",
    r"(\b|_)seats?(\b|_)": "RankActor",
    r"(\b|_)guests?(\b|_)": "existing GPU processes",
    r"(\b|_)strangers?(\b|_)": "unexpected or unstamped hosts",
    r"hindr(ance|ed|s)": "precondition",
    r"(\b|_)needs[ _]nothing(\b|_)": "up to date",
    r"\bin[ _]words\b": "as text",
    r"(\b|_)(stood|stands)[ _]still\b": "hung",
    r"(\b|_)stor(y|ies)(\b|_)": "scenario",
    r"(\b|_)cure[sd]?(\b|_)": "remediation",
    r"(?<!\\)(\b|_)told(\b|_)": "reported",
    r"(\b|_)judg(e[sd]?|ing|e?ments?)(\b|_)": "evaluate",
}


def tracked() -> list[str]:
    done = subprocess.run(["git", "ls-files", "-z", *SEARCHED], cwd=ROOT, capture_output=True, text=True, check=False)
    return [
        name for name in done.stdout.split("\0") if name and not name.startswith(EXCEPTED) and (ROOT / name).is_file()
    ]


@pytest.fixture(scope="module")
def lines() -> list[tuple[str, str]]:
    """Every line of the tracked text files with where it stands, and the files' own names."""
    names = tracked()
    if not names:
        pytest.skip("not a git checkout")
    found = [("file name", name) for name in names]
    for name in names:
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [(f"{name}:{number}", line) for number, line in enumerate(text.splitlines(), 1)]
    return found


@pytest.mark.parametrize(("pattern", "term"), REPLACED.items(), ids=REPLACED.values())
def test_a_replaced_word_is_in_no_tracked_file(pattern: str, term: str, lines: list[tuple[str, str]]) -> None:
    word = re.compile(pattern, re.IGNORECASE)
    assert [f"{where}: {line.strip()}" for where, line in lines if word.search(line)] == [], f"write: {term}"


@pytest.mark.parametrize(
    "line",
    [
        "needs_nothing",
        "the gang ends",
        "gang_judge",
        "putting it back",
        "is left alone",
        "Strangers",
        "was cured",
        "a story",
        "as_told",
        "JUDGED",
    ],
)
def test_the_patterns_match_what_they_are_for(line: str) -> None:
    assert any(re.search(pattern, line, re.IGNORECASE) for pattern in REPLACED)


@pytest.mark.parametrize(
    "line", ["secured", "history", "seatbelt", "ganglia", "retake_output", "in words2", r"ok\told"]
)
def test_the_patterns_leave_ordinary_words(line: str) -> None:
    assert not any(re.search(pattern, line, re.IGNORECASE) for pattern in REPLACED)
