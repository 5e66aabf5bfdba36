from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorauter_integrations.matching.halving import (
    Question,
    Rung,
    cost,
    halving_schedule,
    successive_halving,
    uniform_schedule,
)


def play(contestants, examples, score, rungs=None, seed="s"):
    """Run a game whose answers are given by a function of contestant and example; returns (questions, standings)."""
    game = successive_halving(contestants, "", examples, rungs or halving_schedule(len(contestants), examples), seed)
    questions = [next(game)]
    while True:
        last = questions[-1]
        try:
            questions.append(game.send({n: [score(n, e) for e in last.examples] for n in last.contestants}))
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


def test_questions_are_values():
    assert Question(0, ("", "a"), (1,)) == Question(0, ("", "a"), (1,))
