"""A mapping run joined with an index: what is stale, and why."""

from dataclasses import replace

import pytest
from conftest import set_winner

from lorauter_integrations import AdapterPool, Example, LocalEngine, Task
from lorauter_integrations.errors import MappingError
from lorauter_integrations.mapping import map_tasks, task_states, worker_scorers
from lorauter_integrations.matching import METRIC, TIES
from lorauter_integrations.opening import open_engine
from lorauter_integrations.settings import MappingSettings, Settings

SETTINGS = MappingSettings(score="log_likelihood", shortlist=3)


@pytest.fixture
def mapped(pico_lorauter, tmp_path):
    """The pico LoRAuter after a run; its ledger beside it."""
    list(map_tasks(pico_lorauter.index, pico_lorauter.engine, SETTINGS, tmp_path / "ledger"))
    return pico_lorauter


def states(lorauter, tmp_path, engine=None, settings=SETTINGS):
    found = task_states(lorauter.index, engine or lorauter.engine, settings, tmp_path / "ledger")
    return {task: reason for task, (_, reason) in found.items()}


def test_nothing_is_stale_after_a_run(mapped, tmp_path):
    assert states(mapped, tmp_path) == {"colours": "", "sums": ""}


def test_a_run_screens_a_pool_larger_than_its_shortlist(mapped, tmp_path):
    ranking = mapped.adapter_map["colours"]
    assert (ranking.pool, ranking.screened, len(ranking.scores)) == (6, 3, 4)
    assert len(list((tmp_path / "gradients").glob("*.safetensors"))) == 2


def test_a_new_task_and_a_changed_one_are_stale(mapped, tmp_path):
    mapped.index.add(
        [
            Task("new", "f1", [Example("something new", "yes")]),
            Task("sums", "exact_match", [Example("add the numbers 1 and 2", "3")]),
        ]
    )
    assert states(mapped, tmp_path) == {"colours": "", "new": "not mapped yet", "sums": "not mapped yet"}


def test_the_pool_has_changed(mapped, tmp_path):
    pool = dict(mapped.engine.adapters)
    winner = mapped.adapter_map["colours"].best.adapter
    assert winner
    without = LocalEngine(
        mapped.engine.mixtures.model,
        mapped.engine._tokenizer,
        AdapterPool({n: a for n, a in pool.items() if n != winner}),
    )
    ranked = {one.adapter for ranking in mapped.adapter_map.values() for one in ranking.scores}
    other = next(name for name in pool if name not in ranked)
    changed = AdapterPool(pool | {other: replace(pool[other], content_hash="changed"), "twin": pool[other]})
    with_change = LocalEngine(mapped.engine.mixtures.model, mapped.engine._tokenizer, changed)
    assert states(mapped, tmp_path, without)["colours"] == f"its adapter {winner!r} is not in the pool any more"
    reason = states(mapped, tmp_path, with_change)["colours"]
    assert reason == f"the pool has changed: it had 6 adapters and has 7; new or changed: {other!r}"


@pytest.mark.parametrize("content_hash", ["changed", None])
def test_a_runner_up_that_has_changed_or_gone_is_seen(mapped, tmp_path, content_hash):
    """It answers beside the winner, so it must be what was measured."""
    pool = dict(mapped.engine.adapters)
    second = mapped.adapter_map["colours"].scores[1].adapter or mapped.adapter_map["colours"].scores[2].adapter
    adapter = pool.pop(second)
    if content_hash:
        pool[second] = replace(adapter, content_hash=content_hash)
    engine = LocalEngine(mapped.engine.mixtures.model, mapped.engine._tokenizer, AdapterPool(pool))
    what = "has changed since it was mapped" if content_hash else "is not in the pool any more"
    assert states(mapped, tmp_path, engine)["colours"] == f"its adapter {second!r} {what}"


def test_another_way_of_scoring_and_another_base(mapped, tmp_path):
    reasons = states(mapped, tmp_path, settings=MappingSettings(score="metric"))
    assert set(reasons.values()) == {"it was mapped by another metric or way of scoring"}
    set_winner(mapped.index, "sums", "plain", mapped.engine.adapters["plain"].content_hash, base_model="another")
    assert "another base model" in states(mapped, tmp_path)["sums"]


def test_other_rules_are_seen(mapped, tmp_path):
    reasons = states(mapped, tmp_path, settings=MappingSettings(score="log_likelihood", schedule="uniform"))
    assert reasons["sums"] == (
        "it was mapped with schedule screened, shortlist 3, seed 0, the settings say schedule uniform, seed 0"
    )


def test_a_worker_that_finds_other_files_than_the_run_is_refused(
    pico_lorauter, pico_folder, pico_pool_folder, tmp_path
):
    """Its scores would stand in the ledger under the contents that the run knows."""
    settings = Settings(
        model={"name": str(pico_folder), "dtype": "float32"}, pool={"path": str(pico_pool_folder), "cache": ""}
    )
    engine = open_engine(settings)
    contents = {name: adapter.content_hash for name, adapter in engine.adapters.items()}
    assert set(worker_scorers(settings, engine.identity, contents)) == {METRIC, TIES}
    with pytest.raises(
        MappingError, match="a worker finds other files than the mapping run: 1 adapters, such as 'wide'"
    ):
        worker_scorers(settings, engine.identity, contents | {"wide": "another"})
    with pytest.raises(MappingError, match="other files than the mapping run: the base model"):
        worker_scorers(settings, "another", contents)
