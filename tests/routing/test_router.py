import json
import math

import numpy as np
import pytest
from conftest import set_winner

from lorauter_integrations import AdapterScore, Example, Mixture, Ranking, Task, TaskIndex, TaskRouter
from lorauter_integrations.errors import ConfigError, RoutingError, UnknownTaskError
from lorauter_integrations.routing import PAPER, BestOfTask, ExpectedGain, Mean, Rules, Softmax
from lorauter_integrations.routing.router import route_to_task
from lorauter_integrations.routing.weighting import softmax

# Cosines of the text "query" and the tasks: 1, 0.8, 0.6 and 0.
PLACES = {"query": (1, 0), "one": (1, 0), "two": (0.8, 0.6), "three": (0.6, 0.8), "far": (0, 1)}
# softmax of 1/0.2, 0.8/0.2, 0.6/0.2 = 5, 4, 3
TOTAL = 1 + math.exp(-1) + math.exp(-2)
SHARES = [1 / TOTAL, math.exp(-1) / TOTAL, math.exp(-2) / TOTAL]  # 0.665, 0.245, 0.090


class PlaceEncoder:
    """Every known text has its place in the plane."""

    name = "places"

    def encode(self, texts):
        return np.array([PLACES.get(text, (0.6, -0.8)) for text in texts], dtype=np.float32)


def fill(folder, winners, unmapped=()):
    index = TaskIndex.embedded(folder, PlaceEncoder())
    index.add([Task(name, "f1", [Example(name, "x")]) for name in [*winners, *unmapped]])
    for name, adapter in winners.items():
        set_winner(index, name, adapter, "h" if adapter else "")
    return index


WINNERS = {"far": "d", "three": "c", "one": "a", "two": "b"}


@pytest.fixture
def route_in(tmp_path):
    """Route "query" in an index of some tasks."""
    opened = []

    def route(winners, unmapped=(), k=3, temperature=0.2):
        opened.append(fill(tmp_path / str(len(opened)), winners, unmapped))
        return TaskRouter(opened[-1], Rules(Mean(), Softmax(k, temperature, least=0.0), BestOfTask())).route("query")

    yield route
    for index in opened:
        index.close()


# ------------------------------------------------------------------ the paper's weights


def test_three_nearest_tasks_share_the_weight_by_softmax(route_in):
    route = route_in(WINNERS)
    assert [match.task for match in route.matches] == ["one", "two", "three"]
    assert [match.similarity for match in route.matches] == pytest.approx([1, 0.8, 0.6], abs=1e-6)
    assert [match.weight for match in route.matches] == pytest.approx([0.66524, 0.24473, 0.09003], abs=1e-5)
    assert dict(route.mixture) == pytest.approx(dict(zip("abc", SHARES, strict=True)), abs=1e-6)
    assert not route.abstained


def test_many_texts_are_routed_as_each_alone(tmp_path):
    with fill(tmp_path, WINNERS) as index:
        router = TaskRouter(index, PAPER)
        assert router.route_all(["query", "far"]) == [router.route("query"), router.route("far")]
        assert router.route_all([]) == []


def test_temperature_sharpens_the_weights(route_in):
    route = route_in(WINNERS, k=2, temperature=0.1)  # softmax of 10 and 8
    assert dict(route.mixture) == pytest.approx({"a": 1 / (1 + math.exp(-2)), "b": 1 / (1 + math.exp(2))}, abs=1e-5)


def test_tasks_with_the_same_adapter_add_up(route_in):
    route = route_in({"one": "a", "two": "b", "three": "a"})
    assert dict(route.mixture) == pytest.approx({"a": SHARES[0] + SHARES[2], "b": SHARES[1]}, abs=1e-6)


def test_share_of_a_task_that_no_adapter_improves_stays_with_the_base_model(route_in):
    route = route_in({"one": "", "two": "b", "three": "c"})
    assert dict(route.mixture) == pytest.approx({"b": SHARES[1], "c": SHARES[2]}, abs=1e-6)
    assert route.matches[0].weight == pytest.approx(SHARES[0], abs=1e-6)
    assert "one (similarity 1.000, weight 0.67) -> base model" in route.explain()


def test_order_of_adding_tasks_does_not_matter(route_in):
    backwards = dict(reversed(WINNERS.items()))
    assert route_in(WINNERS) == route_in(backwards)


def test_equally_near_tasks_come_in_name_order(tmp_path):
    with TaskIndex.embedded(tmp_path, PlaceEncoder()) as index:
        index.add([Task(name, "f1", [Example("two", "x")]) for name in ("b", "c", "a")])
        for name in "bca":
            set_winner(index, name, name, "h")
        assert [match.task for match in TaskRouter(index, PAPER).route("query").matches] == ["a", "b", "c"]


def test_k_larger_than_the_number_of_tasks_takes_all(route_in):
    route = route_in(WINNERS, k=50)
    assert [match.task for match in route.matches] == ["one", "two", "three", "far"]
    assert sum(match.weight for match in route.matches) == pytest.approx(1)
    assert route.reason == "nearest 4 of the mapped tasks"


def test_task_that_is_not_mapped_is_not_routed_to(route_in):
    route = route_in({"three": "c", "far": "d"}, unmapped=["one", "two"])
    assert [match.task for match in route.matches] == ["three", "far"]


def test_explanation_is_json_able(route_in):
    facts = json.loads(json.dumps(route_in(WINNERS, k=1).as_dict()))
    assert facts["adapters"] == {"a": 1.0}
    assert facts["tasks"][0]["task"] == "one"


def test_by_default_those_answer_that_did_well_on_the_near_tasks(tmp_path):
    """From the rankings as the index keeps them: each task's best is another, and `all_round` is next to both."""
    names = {"one": "a", "two": "b"}
    with fill(tmp_path, {}, unmapped=names) as index:
        for task, best in names.items():
            rows = [(best, 0.9), ("all_round", 0.85), ("weak", 0.2), ("", 0.0)]
            scores = tuple(AdapterScore(name, name and "h", score, 50) for name, score in rows)
            index.set_ranking(Ranking(task, index.get(task).content_hash, "pico", "by hand", scores, 0))
        route = TaskRouter(index, Rules(Mean(), Softmax(2, 1.0))).route("query")
        shares = {match.task: match.weight for match in route.matches}
        assert shares == pytest.approx({"one": 0.55, "two": 0.45}, abs=0.01)
        assert max(route.mixture, key=route.mixture.get) == "all_round"
        assert "weak" not in route.mixture
        assert route.mixture == ExpectedGain().mixture(
            [(index.ranking(task), share) for task, share in shares.items()]
        )
        named = TaskRouter(index, Rules(Mean(), Softmax(2, 1.0), BestOfTask())).route("query")
        assert dict(named.mixture) == pytest.approx({"a": shares["one"], "b": shares["two"]})


def test_a_route_names_the_tasks_that_share_and_the_three_nearest(tmp_path):
    with fill(tmp_path, WINNERS) as index:
        sure = TaskRouter(index, Rules(Mean(), Softmax(4, 0.01))).route("query")
        assert [(match.task, match.weight) for match in sure.matches] == [("one", 1.0), ("two", 0.0), ("three", 0.0)]
        assert len(TaskRouter(index, Rules(Mean(), Softmax(4, 1.0))).route("query").matches) == 4


def test_softmax_does_not_overflow():
    assert softmax([1.0, -1.0], 1e-4) == [1.0, 0.0]


# ------------------------------------------------------------------ a task chosen by name


@pytest.fixture
def index(tmp_path):
    with fill(tmp_path, {"one": "a", "two": ""}, unmapped=["three"]) as opened:
        yield opened


def test_chosen_task_gives_its_adapter_at_weight_one(index):
    route = route_to_task(index, "one")
    assert (route.mixture, route.matches) == (Mixture({"a": 1.0}), ())
    assert route.reason == "task 'one' was chosen by the caller"


def test_chosen_task_that_no_adapter_improves_gives_the_base_model(index):
    route = route_to_task(index, "two")
    assert route.mixture == Mixture()
    assert route.reason.endswith("no adapter improves on the base model")


def test_chosen_task_must_be_mapped(index):
    with pytest.raises(RoutingError, match=r"(?s)task 'three' has not been mapped.*Hint: run `lorauter map`"):
        route_to_task(index, "three")


def test_chosen_task_must_exist(index):
    with pytest.raises(UnknownTaskError, match=r"(?s)no task 'four'.*Hint: the tasks are 'one', 'three', 'two'"):
        route_to_task(index, "four")


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("text", ["", " \n\t"], ids=["empty", "blank"])
def test_empty_text_cannot_be_routed(index, text):
    with pytest.raises(RoutingError, match=r"(?s)an empty text cannot be routed.*Hint: send a message"):
        TaskRouter(index).route(text)


@pytest.mark.parametrize(
    ("unmapped", "message"),
    [([], "the task index is empty"), (["one", "two"], "none of the 2 tasks has been mapped")],
    ids=["no tasks", "none mapped"],
)
def test_nothing_to_route_to_is_said(route_in, unmapped, message):
    with pytest.raises(RoutingError, match=f"(?s){message}.*Hint: run `lorauter tasks add FOLDER`, then"):
        route_in({}, unmapped)


@pytest.mark.parametrize(("k", "temperature"), [(0, 0.2), (3, 0), (3, -0.2)])
def test_k_and_temperature_must_make_sense(k, temperature):
    with pytest.raises(ConfigError, match=f"k must be at least 1 .*, not k={k}, temperature={temperature}"):
        Softmax(k, temperature)


def test_identity_of_a_router_tells_its_parameters(index):
    rules = [
        Rules(),
        PAPER,
        Rules(weighting=Softmax(2)),
        Rules(weighting=Softmax(temperature=0.1)),
        Rules(choice=BestOfTask()),
    ]
    assert len({TaskRouter(index, each).identity for each in rules}) == 5
    assert TaskRouter(index, Rules(weighting=Softmax(2))).identity == TaskRouter(index, rules[2]).identity
