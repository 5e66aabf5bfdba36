import json

import pytest

from lorauter_integrations import Mixture, Route, TaskMatch

ROUTE = Route(
    Mixture({"sql": 0.75}),
    (TaskMatch("text_to_sql", 0.81234, 0.75, "sql"), TaskMatch("chat", 0.5, 0.25, "")),
    "nearest 2 of the mapped tasks",
)


def test_route_explains_itself_a_line_a_task():
    assert ROUTE.explain().splitlines() == [
        "0.75 sql: nearest 2 of the mapped tasks",
        "  text_to_sql (similarity 0.812, weight 0.75) -> sql",
        "  chat (similarity 0.500, weight 0.25) -> base model",
    ]
    assert str(ROUTE) == ROUTE.explain()


def test_route_to_the_base_model_says_so():
    assert Route(Mixture(), reason="nothing near").explain() == "base model: nothing near"


@pytest.mark.parametrize("abstained", [False, True])
def test_route_becomes_json(abstained):
    route = Route(ROUTE.mixture, ROUTE.matches[:1], "why", abstained)
    assert json.loads(json.dumps(route.as_dict())) == {
        "tasks": [{"task": "text_to_sql", "similarity": 0.81234, "weight": 0.75, "adapter": "sql"}],
        "adapters": {"sql": 0.75},
        "abstained": abstained,
        "reason": "why",
    }
