from __future__ import annotations

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import timeline
from tests.unit.plugin_utils.report import rolls


def test_a_roll_that_goes_well() -> None:
    run = timeline.build(rolls.good())
    assert (run.outcome, run.run, run.next) == ("done", "20261122T011000Z-ab12", "")
    assert [(wave.n, wave.replicas) for wave in run.waves] == [
        (1, ("replica_a",)),
        (2, ("replica_b",)),
        (3, ("replica_c",)),
    ]
    assert [row.host for row in run.rows] == ["a1", "a2", "b1", "b2", "c1", "c2", "replica_z", "replica_q"]
    assert [row.host for row in run.rows if not row.serves] == ["replica_q"]
    a1 = run.rows[0]
    assert [step.step for step in a1.steps] == ["prepare", *rolls.STEPS]
    assert (a1.before["driver"], a1.after["driver"]) == ("550.90.07", "550.127.05")
    assert [segment.outcome for segment in a1.serving] == ["ok", "serving"]
    assert run.rows[-1].steps == ()


def test_steps_of_a_host_follow_each_other_and_stay_within_its_wave() -> None:
    run = timeline.build(rolls.good())
    for row in run.rows[:-2]:
        wave = run.waves[(row.wave or 0) - 1]
        edges = [edge for step in row.steps if step.wave for edge in (step.began, step.ended)]
        assert edges == sorted(edges)
        assert wave.began is not None
        assert wave.ended is not None
        assert wave.began <= edges[0]
        assert edges[-1] <= wave.ended


def test_a_replica_never_serves_while_it_is_changed() -> None:
    for row in timeline.build(rolls.hanging()).rows:
        for step in row.steps:
            if step.kind in ("change", "gates", "restore"):
                assert not any(span.began < step.ended and step.began < span.ended for span in row.serving), (row, step)


def test_a_roll_that_fails() -> None:
    run = timeline.build(rolls.hanging())
    assert run.outcome == "failed"
    assert run.next == "ansible-playbook playbooks/diagnose.yml --limit b1,b2"
    assert [failure.host for failure in run.failures] == ["b1", "b2", "b1", "b2"]
    b1 = run.rows[2]
    assert [(step.step, step.outcome) for step in b1.steps[4:7]] == [
        ("gates", "failed"),
        ("restore", "ok"),
        ("gates", "ok"),
    ]
    assert b1.before == b1.after
    assert run.waves[2].began is None
    assert [row.host for row in run.rows if not row.serves] == ["replica_q"]


def test_a_roll_that_was_killed() -> None:
    run = timeline.build(rolls.killed())
    assert (run.outcome, run.next) == ("unfinished", "the same command again: it goes on from here")
    assert [(step.step, step.outcome) for step in run.rows[0].steps][-1] == ("load", "unfinished")
    assert not run.rows[0].serves
    assert run.rows[2].serves


def test_downtime_is_from_drain_to_admission() -> None:
    out = timeline.downtime(timeline.build(rolls.good()))
    assert sorted(out) == ["replica_a", "replica_b", "replica_c"]
    working = sum(seconds * 1.1 for name, seconds in rolls.STEPS.items() if name != "bake")
    assert working - 5 < out["replica_b"] <= working + 5


def test_every_beginning_of_a_journal_has_a_timeline() -> None:
    for events in (rolls.good(), rolls.hanging(), rolls.killed()):
        for beginning in rolls.prefixes(events):
            run = timeline.build(beginning)
            assert all(segment.seconds >= 0 for row in run.rows for segment in [*row.steps, *row.serving])


def test_typical_wave() -> None:
    good = timeline.typical_wave([rolls.killed(), rolls.hanging(), rolls.good()])
    assert good is not None
    assert 300 < good < 360
    assert timeline.typical_wave([rolls.killed(), rolls.hanging()]) is None
    assert timeline.typical_wave([]) is None
