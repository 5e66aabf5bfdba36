import numpy as np
import pytest
from conftest import WordEncoder, set_winner

from lorauter_integrations import Example, Mixture, Task, TaskRouter
from lorauter_integrations.errors import ConfigError
from lorauter_integrations.routing import Abstaining, Mean, Rules, Softmax
from lorauter_integrations.routing.abstaining import background, contrast

COLOURS = ["red", "blue", "green", "amber", "violet"]


def fill(index, count=30):
    for name, words in (("colours", "name a colour like shade"), ("sums", "add the numbers and tell the total")):
        index.add([Task(name, "f1", [Example(f"{words} {COLOURS[n % 5]} {n % 7}", "x") for n in range(count)])])
        set_winner(index, name, name, "h")


def test_background_is_many_texts_and_none_twice():
    assert len(background()) == len(set(background())) == 300
    assert all(text.strip() for text in background())


def test_contrast_is_the_nearest_task_less_the_three_nearest_of_the_background():
    similarities = np.array([[0.2, 0.9], [0.5, 0.1]])
    beside = np.array([[0.1, 0.2, 0.3, 0.7], [0.0, 0.0, 0.6, 0.0]])
    assert contrast(similarities, beside) == pytest.approx([0.9 - 0.4, 0.5 - 0.2])


@pytest.mark.parametrize("space", [Mean(), None], ids=["mean", "whitened"])
def test_a_text_of_no_task_goes_to_the_base_model_with_the_reason(index, space):
    fill(index)
    rules = Rules(space or Rules().space, Softmax(2, 0.2), abstaining=Abstaining(0.05))
    router = TaskRouter(index, rules)
    near, far = router.route_all(["name a colour like shade red 3", "Write me a bedtime story about a snail"])
    assert not near.abstained
    assert near.matches[0].task == "colours"
    assert far.abstained
    assert far.mixture == Mixture()
    assert {match.weight for match in far.matches} == {0.0}
    assert far.reason.startswith("near to no task: its similarity to the nearest less that to texts of no task is ")
    assert far.reason.endswith("for 5.0% of the tasks' own examples")
    assert far.as_dict()["abstained"] is True


def test_the_rate_is_that_of_the_tasks_own_examples(index):
    fill(index, 100)
    router = TaskRouter(index, Rules(Mean(), abstaining=Abstaining(0.1)))
    look = router.look([example.text for task in index.tasks() for example in task.examples])
    assert look.contrasts is not None
    assert (look.contrasts < look.threshold).mean() <= 0.1  # less, since none is left out here


def test_without_enough_examples_it_never_abstains(index):
    index.add([Task(name, "f1", [Example(name, "x")]) for name in ("red", "blue")])
    for name in ("red", "blue"):
        set_winner(index, name, name, "h")
    route = TaskRouter(index, Rules(abstaining=Abstaining())).route("Write me a bedtime story")
    assert not route.abstained


def test_the_background_is_encoded_once_for_each_fit(index):
    encoder = index.encoder
    assert isinstance(encoder, WordEncoder)
    fill(index)
    router = TaskRouter(index, Rules(abstaining=Abstaining()))
    router.route("red")
    before = encoder.calls
    router.route("blue")
    assert encoder.calls == before + 1


@pytest.mark.parametrize("rate", [0.0, -0.1, 0.6])
def test_the_rate_must_be_a_share(rate):
    with pytest.raises(ConfigError, match=f"rate of abstaining must be above 0 and at most 0.5, not {rate}"):
        Abstaining(rate)
