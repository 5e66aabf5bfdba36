"""The demo's own steps on SmolLM2-135M-Instruct, MiniLM and the committed adapters: nothing is faked here."""

import sys

import pytest
from conftest import CONFIG, DEMO, WINNERS

from lorauter_integrations import LoRAuter, Task
from lorauter_integrations.mapping import map_tasks

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(900)]


@pytest.fixture
def demo(real_lorauter, real_settings, monkeypatch):
    """The demo's modules, on the tests' own index and pool."""
    monkeypatch.syspath_prepend(str(DEMO))
    monkeypatch.setenv("LORAUTER_INDEX__PATH", real_settings.index.path)
    monkeypatch.setenv("LORAUTER_POOL__PATH", real_settings.pool.path)
    monkeypatch.setenv("LORAUTER_MAPPING__LEDGER", real_settings.mapping.ledger)
    assert LoRAuter.from_config(CONFIG).engine is real_lorauter.engine
    return sys.modules


def test_every_committed_adapter_can_be_used(real_lorauter):
    assert real_lorauter.engine.adapters.refused == {}
    assert set(WINNERS.values()) <= set(real_lorauter.engine.adapters)
    ranks = {rank for name in WINNERS.values() for rank in real_lorauter.engine.adapters[name].ranks}
    assert len(ranks) > 1  # the demo mixes adapters of different ranks


def test_each_step_of_the_chain_goes_to_its_own_task_and_is_answered_right(demo):
    from chain import run_chain

    answers = run_chain(CONFIG)
    nearest = {step: answer.route["tasks"][0]["task"] for step, answer in answers.items()}
    assert nearest == {
        "repair": "text_repair",
        "topic": "topic",
        "entities": "entities",
        "sentiment": "sentiment",
        "sql": "text_to_sql",
        "describe": "data_to_text",
    }
    wanted = "Microsoft opened an office in Berlin and Google opened an office in Madrid on Monday."
    assert answers["repair"].text == wanted
    assert answers["topic"].text == "technology"
    assert answers["sentiment"].text == "negative"
    assert answers["sql"].text == "SELECT COUNT(*) FROM bookings WHERE price > 90"
    assert "Microsoft (organisation); Berlin (place)" in answers["entities"].text
    assert "Anchor Bar" in answers["describe"].text
    right = {
        "repair": "Microsoft opened an office in Berlin and Google",
        "topic": "technology",
        "sentiment": "negative",
        "sql": "SELECT COUNT(*)",
    }
    assert not any(answers[step].base.strip().startswith(text) for step, text in right.items())


def test_the_query_engine_answers_through_the_passage_qa_adapter_and_beats_the_base_model(demo):
    from query_engine import run_query_engine

    scores = run_query_engine(CONFIG, DEMO / "documents", DEMO / "questions.jsonl", limit=6)
    assert scores["routed"] > scores["base"] + 0.25


def test_the_agent_calls_the_right_tool_with_the_right_argument_and_answers(demo):
    from agent import run_agent

    weather, order = run_agent(CONFIG)
    assert weather[1].tool_calls[0]["name"] == "get_weather"
    assert weather[1].tool_calls[0]["args"] == {"city": "Lisbon"}
    assert "24" in weather[-1].text
    assert order[1].tool_calls[0]["name"] == "order_status"
    assert order[1].tool_calls[0]["args"] == {"order_id": "48213"}
    assert "delayed" in order[-1].text
    assert weather[1].response_metadata["lorauter"]["tasks"][0]["task"] == "function_calling"


def test_a_task_finds_the_adapter_trained_for_it(real_lorauter, real_settings, tmp_path):
    pool = real_lorauter.engine.adapters
    task = real_lorauter.index.get("sentiment")
    small = Task("small", task.metric, task.examples[:8])
    real_lorauter.index.add([small])
    try:
        ledger = tmp_path / "ledger.jsonl"
        [ranking] = map_tasks(
            real_lorauter.index, real_lorauter.engine, real_settings.mapping, ledger, names=["small"]
        )
        assert ranking.best.adapter in {"sst2", "yelp_polarity_reviews"}
        assert ranking.gain > 0.5
        assert ranking.best.content_hash == pool[ranking.best.adapter].content_hash
        [again] = map_tasks(real_lorauter.index, real_lorauter.engine, real_settings.mapping, ledger, names=["small"])
        assert again == ranking
    finally:
        real_lorauter.index.remove("small")
