"""Bisection to bad hosts and pairs: tables of trials and of small clusters, and thousands of random large ones."""

from __future__ import annotations

import random

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.gates import bisect


class Cluster:
    """Hosts some of which, or whose links, are bad; counts rounds and refuses groups that overlap."""

    def __init__(self, hosts, bad_hosts=(), bad_pairs=(), alone=()):
        self.hosts = hosts
        self.bad_hosts = set(bad_hosts)
        self.bad_pairs = {tuple(sorted(pair)) for pair in bad_pairs}
        self.alone = set(alone)  # bad even alone
        self.rounds = 0

    def passes(self, group):
        if len(group) == 1:
            return group[0] not in self.alone
        members = set(group)
        linked = any(members.issuperset(pair) for pair in self.bad_pairs)
        return not (members & (self.bad_hosts | self.alone)) and not linked

    def run(self, groups):
        self.rounds += 1
        members = [host for group in groups for host in group]
        assert len(members) == len(set(members)), "a host cannot be in two groups at once"
        return [self.passes(group) for group in groups]

    def bisect(self):
        return bisect.locate(self.hosts, self.run)


def names(count):
    return [f"h{index:02}" for index in range(count)]


@pytest.mark.parametrize(
    ("count", "bad_hosts", "bad_pairs", "alone", "hosts", "pairs", "unclear"),
    [
        (2, [], [("h00", "h01")], [], [], [("h00", "h01")], []),
        (2, [], [], ["h01"], ["h01"], [], []),
        (2, [], [], ["h00", "h01"], ["h00", "h01"], [], []),
        (2, ["h00"], [], [], [], [("h00", "h01")], []),  # good alone: only the pair can be named
        (3, ["h01"], [], [], ["h01"], [], []),
        (3, [], [("h00", "h02")], [], [], [("h00", "h02")], []),
        (3, ["h00", "h01"], [], [], [], [], ["h00", "h01", "h02"]),  # nobody passes: nobody can be accused
        (3, [], [], ["h00"], ["h00"], [], []),
        (4, ["h03"], [], [], ["h03"], [], []),
        (4, ["h00", "h03"], [], [], ["h00", "h03"], [], []),
        (4, ["h00"], [("h01", "h02")], [], ["h00"], [("h01", "h02")], []),
        (4, ["h00", "h01", "h02"], [], [], [], [], ["h00", "h01", "h02", "h03"]),
        (5, ["h04"], [], [], ["h04"], [], []),
        (8, ["h00", "h01"], [], [], ["h00", "h01"], [], []),
        (8, ["h00", "h02"], [], [], ["h00", "h02"], [], []),
        (8, [], [("h02", "h03")], [], [], [("h02", "h03")], []),
        (8, ["h06"], [("h02", "h03")], [], ["h06"], [("h02", "h03")], []),
    ],
)
def test_small_cases(count, bad_hosts, bad_pairs, alone, hosts, pairs, unclear):
    cluster = Cluster(names(count), bad_hosts, bad_pairs, alone)
    finding = cluster.bisect()
    assert (list(finding.hosts), list(finding.pairs), list(finding.unclear)) == (hosts, pairs, unclear)
    assert cluster.rounds == finding.rounds <= bisect.MOST_ROUNDS


def explained(finding):
    """Whether something was accused and nothing remains unexplained."""
    return bool(finding.hosts or finding.pairs) and not finding.unclear and finding.rest is not False


def tried(*outcomes):
    """One round: ``"ab"`` passed, ``"-ab"`` failed, ``"?ab"`` was inconclusive."""
    return [
        bisect.Trial(tuple(outcome.strip("-?")), None if outcome[0] == "?" else outcome[0] != "-")
        for outcome in outcomes
    ]


@pytest.mark.parametrize(
    ("hosts", "rounds", "bad", "pairs", "unclear"),
    [
        ("abcdef", [("-ab", "cd", "ef")], "", [], "ab"),
        ("abcdef", [("-ab", "cd", "ef"), ("-ac", "bd")], "a", [], ""),  # two failures among cleared hosts
        ("abcdef", [("-ab", "cd", "ef"), ("-ac",)], "", [], "ab"),  # one failure among cleared hosts is not enough
        ("abcdef", [("-ab", "cd", "ef"), ("-ac", "?bd")], "", [], "ab"),  # the other may be b's doing
        ("abcdef", [("-ab", "cd", "ef"), ("-ac", "-bd"), ("-ad", "be")], "a", [("b", "d")], ""),
        ("abcdef", [("-ab", "cd", "ef"), ("?ac", "bd")], "", [], "a"),  # inconclusive is no failure
        ("abcdef", [("ab", "cd", "ef"), ("-ac", "-bd")], "", [("a", "c"), ("b", "d")], ""),
        ("abcdef", [("ab", "cd", "ef"), ("-ca", "?bd")], "", [("a", "c")], ""),  # in the order of names
        ("abcdef", [("ab", "cd", "ef"), ("-acd",)], "", [], ""),  # three are no pair
        ("abcdef", [("-abc", "de"), ("-adf", "bc")], "", [], "af"),  # who fails beside the uncleared f
        ("abc", [("bc", "?a"), ("-abc",), ("-abc",)], "a", [], ""),  # among all that are cleared
        ("abc", [("ab", "-c")], "c", [], ""),  # fails alone
        ("abc", [("ab", "-a")], "a", [], "c"),  # though it passed with another
        ("abc", [("ab", "c")], "", [], "c"),  # passing alone clears nobody
        ("abc", [("-a", "-b"), ("-ac",)], "ab", [], "c"),
        ("ab", [("a", "b")], "", [("a", "b")], ""),
        ("ba", [("a", "b")], "", [("a", "b")], ""),
        ("ab", [("a", "-b")], "b", [], ""),
        ("ab", [("a", "?b")], "", [], "ab"),
        ("ab", [("-a", "?b")], "a", [], "b"),
        ("ab", [], "", [], "ab"),
    ],
)
def test_evaluate(hosts, rounds, bad, pairs, unclear):
    finding = bisect.evaluate(hosts, [tried(*outcomes) for outcomes in rounds])
    assert ("".join(finding.hosts), list(finding.pairs), "".join(finding.unclear)) == (bad, pairs, unclear)
    assert finding.rounds == len(rounds)


@pytest.mark.parametrize(
    ("hosts", "rounds", "rest", "located"),
    [
        ("abcdef", [("-ab", "cd", "ef"), ("-ac", "bd"), ("bcd",)], True, True),
        ("abcdef", [("-ab", "cd", "ef"), ("-ac", "bd"), ("-bcd",)], False, False),
        ("abcdef", [("-ab", "cd", "ef"), ("-ac", "bd"), ("?bcd",)], None, True),
        ("abcdef", [("-ab", "cd", "ef"), ("-ac", "bd"), ("bc",)], None, True),  # two are not the rest
        ("abcdef", [("-ab", "cd", "ef"), ("-acd", "bd")], None, True),
        ("abcd", [("-ab", "cd"), ("-ac", "bd"), ("bcd",)], None, True),
        ("abcdef", [("ab", "cd", "ef"), ("-ac",)], None, True),
        ("abcdef", [("ab", "cd", "ef")], None, False),
    ],
)
def test_whether_the_others_pass_together(hosts, rounds, rest, located):
    finding = bisect.evaluate(hosts, [tried(*outcomes) for outcomes in rounds])
    assert (finding.rest, explained(finding)) == (rest, located)


@pytest.mark.parametrize(
    ("hosts", "rounds", "groups"),
    [
        ("a", [], []),
        ("ab", [], ["a", "b"]),
        ("ab", [("a", "b")], []),
        ("abc", [], ["ab", "c"]),
        ("abcd", [("ab", "cd"), ("-ac", "bd")], ["ad", "bc"]),
        ("abcd", [("ab",), ("ab",), ("ab",)], []),
        ("abcde", [], ["ab", "cde"]),
        ("abcdef", [("-ab", "cd", "ef")], ["ac", "bd"]),  # suspects meet cleared hosts
        ("abcdefgh", [("-ab", "cd", "ef", "gh")], ["ac", "bd", "eg", "fh"]),  # the idle try further links
        ("abcdef", [("-ab", "-cd", "-ef")], ["ac", "bd"]),  # nobody is cleared: other pairs
        ("abcdef", [("-ab", "cd", "ef"), ("-ac", "bd")], ["ad", "bcef"]),
        ("abcdef", [("-ab", "cd", "-ef"), ("-ac", "-bd")], ["ad", "bc"]),  # nobody uncleared runs with the others
        ("abcde", [("-ab", "cde"), ("-ac", "-bd")], ["ad", "bc"]),  # one that is left over is no group
        ("abcdef", [("ab", "cd", "ef"), ("-ac", "bd", "?ef")], ["bcdef"]),  # one host of a bad pair is left out
    ],
)
def test_next_round(hosts, rounds, groups):
    found = bisect.next_round(hosts, [tried(*outcomes) for outcomes in rounds])
    assert ["".join(group) for group in found] == groups


def test_one_host_needs_no_round():
    assert bisect.next_round(["h00"], []) == []


def test_a_fault_that_needs_many_hosts_accuses_nobody():
    finding = bisect.locate(names(16), lambda groups: [len(group) <= 2 for group in groups])
    assert (finding.hosts, finding.pairs, finding.rest, explained(finding)) == ((), (), False, False)


@pytest.mark.parametrize("count", [2, 4, 16])
def test_inconclusive_trials_accuse_nobody(count):
    finding = bisect.locate(names(count), lambda groups: [None] * len(groups))
    assert (finding.hosts, finding.pairs, list(finding.unclear)) == ((), (), names(count))


def test_three_links_of_one_host_never_accuse_its_partners():
    links = [("h00", f"h{index:02}") for index in range(1, 16)]
    finding = Cluster(names(16), bad_pairs=links).bisect()
    assert finding.hosts == ("h00",)
    assert finding.pairs == ()


def simulate(count, faults, cases, *, links, seed):
    """Random clusters with up to ``faults`` faults. Returns figures; a wrong accusation fails the test."""
    chance = random.Random(seed)
    figures = {"cases": cases, "located": 0, "rounds": 0, "most_rounds": 0, "unclear": 0}
    hosts = names(count)
    for _ in range(cases):
        number = chance.randint(1, faults)
        split = chance.randint(0, number) if links == "mixed" else (number if links else 0)
        bad_hosts = set(chance.sample(hosts, number - split))
        bad_pairs = {tuple(sorted(chance.sample(hosts, 2))) for _ in range(split)}
        finding = Cluster(chance.sample(hosts, count), bad_hosts, bad_pairs).bisect()
        assert set(finding.hosts) <= bad_hosts, f"accused {finding.hosts}, bad are {bad_hosts} and {bad_pairs}"
        assert set(finding.pairs) <= bad_pairs, f"accused {finding.pairs}, bad are {bad_pairs}"
        figures["located"] += set(finding.hosts) == bad_hosts and explained(finding)
        figures["unclear"] += bool(finding.unclear)
        figures["rounds"] += finding.rounds
        figures["most_rounds"] = max(figures["most_rounds"], finding.rounds)
    print(f"\n{count} hosts, up to {faults} faults, links {links}: {figures}")
    return figures


@pytest.mark.parametrize("count", [16, 17, 33, 64])
def test_up_to_four_bad_hosts_are_all_found(count):
    figures = simulate(count, 4, 2000, links=False, seed=count)
    assert figures["located"] == figures["cases"]
    assert figures["most_rounds"] <= 3


@pytest.mark.parametrize("count", [5, 6, 8, 9, 12])
def test_few_hosts_are_never_wrongly_accused(count):
    figures = simulate(count, 4, 1000, links=False, seed=count)
    assert figures["most_rounds"] <= 3
    assert figures["located"] > figures["cases"] / 4


def test_bad_links_and_hosts_together_never_accuse_the_innocent():
    figures = simulate(64, 4, 3000, links="mixed", seed=1)
    assert figures["most_rounds"] <= 3


def test_bad_links_alone_never_accuse_a_host():
    assert simulate(64, 4, 1000, links=True, seed=2)["most_rounds"] <= 3
