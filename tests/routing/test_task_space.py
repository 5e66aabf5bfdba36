import numpy as np
import pytest

from lorauter_integrations import AdapterScore, Ranking
from lorauter_integrations.errors import ConfigError
from lorauter_integrations.routing import KnownTasks, Mean, Whitened
from lorauter_integrations.routing.encoder import mean_vector
from lorauter_integrations.routing.task_space import LeftOut, Within
from lorauter_integrations.routing.views import Embedded

RNG = np.random.default_rng(7)
DIMENSION = 6


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def examples(count, endings=(), centre=0.0):
    """Examples about a direction; those at some places have endings."""
    return Embedded(
        unit(RNG.normal(size=(count, DIMENSION)) + centre),
        unit(RNG.normal(size=(len(endings), DIMENSION)) - centre).reshape(-1, DIMENSION),
        np.array(endings, dtype=np.int64),
    )


def known(*tasks):
    rankings = [Ranking(f"t{n}", "h", "b", "s", (AdapterScore("a", "h", 1.0, 1),), 1) for n in range(len(tasks))]
    vectors = np.stack([mean_vector(task.whole) for task in tasks])
    return KnownTasks(rankings, vectors, lambda: tasks, len(tasks), "v")


def whole(vectors):
    return Embedded(vectors, vectors[:0], np.array([], dtype=np.int64))


# ------------------------------------------------------------------ leaving one out


def left_out_by_hand(tasks, shrinkage):
    """Every example's cosines, the means and the covariance made anew without it; centre and level of all."""
    all_of = Within(tasks)
    groups = [task.whole.astype(float) for task in tasks] + [
        tasks[at].endings.astype(float) for at in all_of.with_endings
    ]

    def cosines(x, group, row):
        rest = [np.delete(each, row, axis=0) if at == group else each for at, each in enumerate(groups)]
        means = np.stack([each.mean(axis=0) for each in rest])
        about = np.concatenate([each - mean for each, mean in zip(rest, means, strict=True)])
        freedom = sum(map(len, groups)) - len(groups)
        covariance = about.T @ about / freedom / all_of._level
        precision = np.linalg.inv((1 - shrinkage) * covariance + shrinkage * np.eye(DIMENSION))
        x, means = x - all_of.centre, means - all_of.centre
        return (
            means @ precision @ x / np.sqrt((x @ precision @ x) * np.einsum("ij,jk,ik->i", means, precision, means))
        )

    rows = []
    for at, task in enumerate(tasks):
        for row, x in enumerate(task.whole.astype(float)):
            mine = cosines(x, at, row)[: len(tasks)]
            if row in task.long:
                place = list(task.long).index(row)
                group = len(tasks) + list(all_of.with_endings).index(at) if at in all_of.with_endings else -1
                ends = cosines(task.endings[place].astype(float), group, place)[len(tasks) :]
                mine[all_of.with_endings] = (mine[all_of.with_endings] + ends) / 2
            rows.append(mine)
    return np.array(rows)


@pytest.mark.parametrize("shrinkage", [0.01, 0.3, 1.0])
def test_leaving_one_out_is_what_making_all_anew_gives(shrinkage):
    tasks = [examples(9, centre=1.0), examples(7, range(6), centre=-0.5), examples(8, [1, 4])]
    found = Within(tasks).leave_one_out(shrinkage)
    np.testing.assert_allclose(found.similarities, left_out_by_hand(tasks, shrinkage), atol=1e-9)
    assert found.own.tolist() == [0] * 9 + [1] * 7 + [2] * 8


def test_other_vectors_stand_beside_the_tasks():
    tasks = [examples(9, centre=1.0), examples(7)]
    others = examples(4).whole
    found = Within(tasks).leave_one_out(1.0, others)
    x, seen = tasks[0].whole[0] - Within(tasks).centre, others - Within(tasks).centre
    expected = seen @ x / np.linalg.norm(x) / np.linalg.norm(seen, axis=1)
    np.testing.assert_allclose(found.beside[0], expected, atol=1e-6)


def test_without_examples_to_leave_out_there_is_nothing():
    assert Whitened().fit(known(examples(1), examples(1))).leave_one_out() is None
    assert Mean().fit(known(examples(5))).leave_one_out() is None


def test_the_best_temperature_is_near_the_best_of_a_fine_grid():
    similarities = RNG.normal(size=(400, 5)) * 0.1
    own = RNG.integers(0, 5, size=400)
    similarities[np.arange(400), own] += 0.15
    left_out = LeftOut(similarities, own, similarities[:, :0])
    grid = np.geomspace(0.005, 2, 4000)
    best = grid[np.argmax([left_out.log_likelihood(each) for each in grid])]
    assert left_out.best_temperature() == pytest.approx(best, rel=0.15)


# ------------------------------------------------------------------ the spaces


def test_the_papers_space_is_the_cosine_of_mean_vectors_and_reads_no_examples():
    tasks = known(examples(5), examples(6))
    never = KnownTasks(tasks.rankings, tasks.vectors, lambda: pytest.fail("read"), 2, "v")
    texts = examples(3).whole
    np.testing.assert_allclose(Mean().fit(never).similarities(whole(texts)), texts @ tasks.vectors.T, atol=1e-6)


def test_whitening_tells_apart_what_the_mean_alone_confuses():
    """The tasks differ in one direction a little; within both, another direction varies much."""
    noise = np.array([0.05, 0.9, 0.05, 0.05, 0.05, 0.05])
    base = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    one, other = (unit(base + [shift, 0, 0, 0, 0, 0] + RNG.normal(size=(300, 6)) * noise) for shift in (-0.1, 0.1))
    tasks = known(whole(one[:100]), whole(other[:100]))
    texts, own = whole(np.concatenate([one[100:], other[100:]])), np.repeat([0, 1], 200)
    right = [(space.fit(tasks).similarities(texts).argmax(axis=1) == own).mean() for space in (Mean(), Whitened())]
    assert right[1] > right[0] + 0.1


def test_placed_examples_vary_alike_in_all_directions():
    tasks = [examples(300, centre=1.0), examples(300)]
    within = Within(tasks)
    root = np.linalg.cholesky(within.precision(1e-9))
    about = np.concatenate([task.whole - task.whole.mean(axis=0) for task in tasks]) @ root
    covariance = about.T @ about / (600 - 2)
    np.testing.assert_allclose(covariance, np.eye(DIMENSION) * np.trace(covariance) / DIMENSION, atol=1e-3)


def test_order_of_the_tasks_does_not_matter():
    one, two, three = examples(9, range(6), centre=1.0), examples(7), examples(8, range(8))
    text = examples(2, [1])
    forth = Whitened().fit(known(one, two, three)).similarities(text)
    back = Whitened().fit(known(three, two, one)).similarities(text)
    np.testing.assert_allclose(forth, back[:, ::-1], atol=1e-4)


def test_a_task_that_comes_and_goes_leaves_no_trace():
    one, two, three = examples(9), examples(7), examples(8)
    all_three, texts = known(one, two, three), whole(one.whole)
    again = Whitened().fit(all_three.without(["t2"])).similarities(texts)
    assert (again == Whitened().fit(known(one, two)).similarities(texts)).all()


def test_an_ending_counts_as_much_as_the_whole():
    one, two = examples(9, range(9), centre=1.0), examples(9)
    space = Whitened(1.0).fit(known(one, two))
    text = Embedded(one.whole[:1], one.endings[:1], np.array([0]))
    plain, ending = (space.similarities(whole(vectors)) for vectors in (text.whole, text.endings))
    both = space.similarities(text)
    assert both[0, 1] == plain[0, 1]  # no example of this task has an ending
    to_endings = float(space.place(text.endings)[0] @ space._ends[0])
    assert both[0, 0] == pytest.approx((plain[0, 0] + to_endings) / 2, abs=1e-6)
    assert ending[0, 0] != pytest.approx(to_endings)


@pytest.mark.parametrize("shrinkage", [0.0, -0.1, 1.5])
def test_shrinkage_must_be_a_share(shrinkage):
    with pytest.raises(ConfigError, match=f"shrinkage must be above 0 and at most 1, not {shrinkage}"):
        Whitened(shrinkage)


def test_one_example_a_task_is_enough_to_route():
    tasks = known(examples(1, centre=1.0), examples(1, centre=-1.0))
    space = Whitened().fit(tasks)
    assert space.shrinkage == 1.0
    assert space.similarities(tasks.examples[1]).argmax() == 1
