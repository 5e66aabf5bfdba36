import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorauter_integrations.matching.halving import (
    SURE,
    Question,
    Rung,
    cost,
    halving_schedule,
    screened_schedule,
    successive_halving,
    uniform_schedule,
)


def play(contestants, examples, score, rungs=None, seed="s", likelihood=None, **options):
    """Run a game whose answers are given by a function of contestant and example; returns (questions, standings)."""
    rungs = rungs or halving_schedule(len(contestants), examples)
    game = successive_halving(contestants, "", examples, rungs, seed, ties=likelihood is not None, **options)
    questions = [next(game)]
    while True:
        last = questions[-1]
        ask = likelihood if last.decides_ties else score
        try:
            questions.append(game.send({n: [ask(n, e) for e in last.examples] for n in last.contestants}))
        except StopIteration as end:
            return questions, end.value


def test_the_papers_own_schedule():
    """48 adapters, 200 examples: the authors' rounds for b = 15.16, which asks all 200 (PAPER 1.3)."""
    rungs = halving_schedule(48, 200)
    assert [rung.keep for rung in rungs] == [24, 12, 6, 3]
    assert [rung.examples for rung in rungs] == [38, 34, 51, 77]
    assert cost(rungs, 48) - 200 == 48 * 38 + 24 * 34 + 12 * 51 + 6 * 77  # the base's own 200 apart
    assert cost(uniform_schedule(48, 200), 48) == 49 * 200


@given(contestants=st.integers(1, 3000), examples=st.integers(1, 200))
def test_every_schedule_asks_all_examples_and_narrows_to_at_most_three(contestants, examples):
    rungs = halving_schedule(contestants, examples)
    assert sum(rung.examples for rung in rungs) == examples
    assert all(rung.examples >= 1 for rung in rungs)
    keeps = [contestants, *(rung.keep for rung in rungs)]
    assert all(after <= max(before, 3) for before, after in pairwise(keeps))
    assert rungs[-1].keep == 3
    assert cost(rungs, contestants) <= cost(uniform_schedule(contestants, examples), contestants)


def test_rounds_ask_new_examples_of_the_better_half_and_always_of_the_base():
    names = [f"a{i:02d}" for i in range(48)]
    questions, standings = play(names, 24, lambda n, e: 0.0 if n == "" else int(n[1:]) / 48)
    assert [len(q.contestants) for q in questions] == [49, 25, 13, 7]
    assert all(q.contestants[0] == "" for q in questions)
    asked = [e for q in questions for e in q.examples]
    assert sorted(asked) == list(range(24))
    assert questions[1].contestants[1:] and set(questions[1].contestants[1:]) == set(names[24:])
    assert [s.contestant for s in standings[:3]] == ["a47", "a46", "a45"]
    assert standings[0].examples == 24


def test_a_score_is_the_mean_over_all_examples_seen():
    _, standings = play(["x"], 4, lambda n, e: e / 10 if n else 0.0, [Rung(1, 3), Rung(3, 3)])
    assert standings[0].contestant == "x"
    assert standings[0].score == pytest.approx((0 + 1 + 2 + 3) / 40)


def test_an_adapter_that_only_equals_the_base_does_not_win():
    _, standings = play(["x", "y"], 5, lambda n, e: 0.5)
    assert standings[0].contestant == ""


def test_ties_are_broken_by_the_seed_not_by_name():
    names = [f"a{i}" for i in range(40)]
    winners = {play(names, 10, lambda n, e: 1.0 if n else 0.0, seed=str(s))[1][0].contestant for s in range(20)}
    assert len(winners) > 5


def test_the_order_of_contestants_does_not_matter():
    names = [f"a{i}" for i in range(20)]
    score = lambda n, e: (hash((n, e)) % 97) / 97  # noqa: E731
    assert play(names, 12, score) == play(names[::-1], 12, score)


@given(contestants=st.integers(1, 100), examples=st.integers(1, 200))
def test_the_schedule_after_a_screening_asks_all_examples_and_ends_with_three(contestants, examples):
    rungs = screened_schedule(contestants, examples)
    assert sum(rung.examples for rung in rungs) == examples
    assert all(rung.examples >= min(4, examples) for rung in rungs)
    assert all(before.keep >= after.keep for before, after in pairwise(rungs))
    assert rungs[-1].keep == 3


def test_the_schedule_after_a_screening_costs_a_tenth_of_the_papers_on_the_whole_pool():
    assert [(rung.examples, rung.keep) for rung in screened_schedule(24, 100)] == [(4, 12), (10, 6), (25, 3), (61, 3)]
    assert cost(screened_schedule(24, 100), 24) == 649
    assert cost(halving_schedule(1500, 100), 1500) == 8476


def test_those_who_are_surely_behind_are_out_before_the_schedule_says():
    score = lambda n, e: {"": 0.0, "good": 1.0, "near": float(e % 8 > 0), "bad": 0.0}[n]  # noqa: E731
    rungs = [Rung(16, 3), Rung(8, 3)]
    questions, standings = play(["good", "near", "bad"], 24, score, rungs, sure=SURE)
    assert [set(q.contestants) for q in questions] == [{"", "good", "near", "bad"}, {"", "good", "near"}]
    assert [s.contestant for s in standings] == ["good", "near", "", "bad"]
    assert len(play(["good", "near", "bad"], 24, score, rungs)[0][1].contestants) == 4


def test_nobody_is_out_on_a_few_examples():
    questions, _ = play(["good", "bad"], 12, lambda n, e: float(n == "good"), [Rung(7, 3), Rung(5, 3)], sure=SURE)
    assert len(questions[1].contestants) == 3


def asked_with_and_without_a_newcomer(seed, sure):
    score = lambda n, e: round(random.Random(f"{seed}{n}{e}").random() + (n == "a3") / 4)  # noqa: E731
    names = [f"a{i}" for i in range(24)]
    for contestants in (names, [*names, "new"]):
        questions, _ = play(contestants, 50, score, screened_schedule(24, 50), sure=sure)
        yield {(n, e) for q in questions for n in q.contestants for e in q.examples if n != "new"}


@pytest.mark.parametrize("sure", [SURE, float("inf")])
def test_one_more_contestant_hardly_ever_makes_others_be_asked_more(sure):
    """Here all but one are equally good, the worst case: who takes whose place is chance."""
    runs = [tuple(asked_with_and_without_a_newcomer(seed, sure)) for seed in range(100)]
    more = sum(len(beside - without) for without, beside in runs)
    assert more < 0.01 * sum(len(without) for without, _ in runs)


def test_the_likelihood_tells_apart_whom_the_score_cannot():
    names = [f"a{i}" for i in range(6)]
    score = lambda n, e: float(n in {"a1", "a2", "a4"})  # noqa: E731
    likelihood = lambda n, e: {"a1": 0.2, "a2": 0.9, "a4": 0.5}[n]  # noqa: E731
    for seed in "abc":
        questions, standings = play(names, 8, score, [Rung(8, 6)], seed, likelihood)
        assert questions[-1] == Question(1, questions[-1].contestants, questions[0].examples, decides_ties=True)
        assert set(questions[-1].contestants) == {"a1", "a2", "a4"}
        assert [s.contestant for s in standings[:3]] == ["a2", "a4", "a1"]
        assert {s.score for s in standings[:3]} == {1.0}


def test_the_likelihood_is_not_asked_when_there_is_no_tie_or_the_base_is_as_good():
    def never(name, example):
        raise AssertionError("asked")

    assert play(["a", "b"], 8, lambda n, e: float(n == "a"), likelihood=never)[1][0].contestant == "a"
    assert play(["a", "b"], 8, lambda n, e: 1.0, likelihood=never)[1][0].contestant == ""


def test_a_standing_says_how_sure_it_is_and_how_it_came_there():
    _, [standing, _] = play(["x"], 4, lambda n, e: float(e == 0) if n else 0.0, [Rung(2, 3), Rung(2, 3)])
    assert (standing.score, standing.examples) == (0.25, 4)
    assert standing.error == pytest.approx((0.1875 / 3) ** 0.5)  # the sample's deviation, by the root of 4
    assert standing.path in ((0.5, 0.25), (0.0, 0.25))


def test_questions_are_values():
    assert Question(0, ("", "a"), (1,)) == Question(0, ("", "a"), (1,))
