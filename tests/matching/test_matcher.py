"""Matching with a hand-written scorer; the real model's part is in tests/test_demo.py."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from lorauter_integrations import Example, Ledger, LikelihoodScorer, Matcher, MetricScorer, Task
from lorauter_integrations.errors import MappingError
from lorauter_integrations.matching.ledger import Key
from lorauter_integrations.matching.matcher import Progress
from lorauter_integrations.matching.workers import InProcess
from lorauter_integrations.pool import Adapter

SCORER = '''
import hashlib

class HashScorer:
    """A score that anyone can compute again: from the adapter's and the example's text."""

    base_model = "none"

    def __init__(self):
        self.asked = []

    def identity(self, task):
        return "hash-scorer"

    def score(self, task, pairs):
        self.asked += [(task.name, name, example.input) for name, example in pairs]
        return [self.value(name, example) for name, example in pairs]

    @staticmethod
    def value(name, example):
        luck = hashlib.sha256(f"{name}/{example.input}".encode()).digest()[0] / 255
        skill = {"": 0.2, "ad07": 0.9}.get(name, 0.4)
        return (luck + 3 * skill) / 4
'''
exec(SCORER)
HashScorer = globals()["HashScorer"]


def tasks(count=3, examples=24):
    return [
        Task(
            f"task{t}",
            "exact_match",
            [Example(f"question {t}-{i}" + "x" * i, "answer") for i in range(examples)],
        )
        for t in range(count)
    ]


def pool(count=48):
    return {f"ad{i:02d}": Adapter(f"ad{i:02d}", Path("nowhere"), "", f"hash{i:02d}", {}, 0) for i in range(count)}


def test_the_best_adapter_wins_at_the_cost_of_the_schedule():
    scorer = HashScorer()
    matcher = Matcher(scorer)
    [ranking] = matcher.match(tasks(1), pool())
    assert ranking.best.adapter == "ad07"
    assert ranking.best.content_hash == "hash07"
    assert ranking.best.examples == ranking.base.examples == 24
    expected = sum(HashScorer.value("ad07", e) for e in tasks(1)[0].examples) / 24
    assert ranking.best.score == pytest.approx(expected)
    assert ranking.gain == pytest.approx(ranking.best.score - ranking.base.score)
    assert ranking.questions == len(scorer.asked) == matcher.questions(tasks(1)[0], 48)
    assert ranking.questions < 0.42 * 49 * 24


def test_a_task_that_no_adapter_improves_maps_to_the_base_model():
    class Level(HashScorer):
        @staticmethod
        def value(name, example):
            return 0.5

    [ranking] = Matcher(Level()).match(tasks(1), pool(5))
    assert ranking.best.is_base
    assert ranking.gain == 0


def test_nothing_in_the_ledger_is_asked_again(tmp_path):
    first, second = HashScorer(), HashScorer()
    maps = [
        list(Matcher(scorer, Ledger(tmp_path / "ledger.jsonl")).match(tasks(), pool())) for scorer in (first, second)
    ]
    assert maps[0] == maps[1]
    assert len(set(first.asked)) == len(first.asked)
    assert second.asked == []


def test_a_changed_adapter_and_a_new_example_are_asked_and_nothing_else(tmp_path):
    list(Matcher(HashScorer(), Ledger(tmp_path / "l")).match(tasks(1, 8), pool(3)))
    scorer, changed = HashScorer(), pool(3)
    changed["ad01"] = Adapter("ad01", Path("nowhere"), "", "other", {}, 0)
    list(Matcher(scorer, Ledger(tmp_path / "l")).match(tasks(1, 8), changed))
    assert {name for _, name, _ in scorer.asked} == {"ad01"}
    scorer = HashScorer()
    list(Matcher(scorer, Ledger(tmp_path / "l")).match(tasks(1, 9), changed))
    assert {text for _, _, text in scorer.asked} == {"question 0-8xxxxxxxx"}


def test_a_run_killed_in_the_middle_ends_with_the_same_map_and_asks_nothing_twice(tmp_path):
    """A real process, a real SIGKILL, twice; its questions are written down by the scorer itself."""
    program = textwrap.dedent(
        """
        import sys, time
        sys.path.insert(0, sys.argv[2])
        from tests_scorer import HashScorer
        from test_matcher import pool, tasks
        from lorauter_integrations import AdapterMap, Ledger, Matcher

        class Slow(HashScorer):
            def score(self, task, pairs):
                time.sleep(0.01)
                scores = super().score(task, pairs)
                with open(sys.argv[1] + "/asked", "a") as stream:
                    stream.writelines(f"{task.name} {name} {e.input}\\n" for name, e in pairs)
                return scores

        ledger = Ledger(sys.argv[1] + "/ledger.jsonl")
        rankings = list(Matcher(Slow(), ledger).match(tasks(), pool()))
        open(sys.argv[1] + "/map.json", "w").write(AdapterMap(rankings).to_json())
        """
    )
    (tmp_path / "tests_scorer.py").write_text(SCORER)
    (tmp_path / "run.py").write_text(program)
    state = tmp_path / "state"
    state.mkdir()
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[1]}"}
    command = [sys.executable, str(tmp_path / "run.py"), str(state), str(tmp_path)]
    for lines in (4, 15):
        process = subprocess.Popen(command, env=environment)
        deadline = time.monotonic() + 60
        while not (state / "ledger.jsonl").exists() or (state / "ledger.jsonl").read_text().count("\n") < lines:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (state / "map.json").exists()
    subprocess.run(command, env=environment, check=True)
    uninterrupted = [json.loads(r.to_json()) for r in Matcher(HashScorer()).match(tasks(), pool())]
    assert json.loads((state / "map.json").read_text()) == uninterrupted
    answered = [row for line in (state / "ledger.jsonl").read_text().splitlines() for row in json.loads(line)]
    assert len(answered) == len({tuple(row[:3]) for row in answered}) == sum(r["questions"] for r in uninterrupted)
    # A batch in flight at a kill was asked and never answered; nothing else may come twice.
    asked = (state / "asked").read_text().splitlines()
    assert len(asked) - len(set(asked)) <= 2 * 32


def test_a_torn_last_line_is_cut_off_and_its_questions_asked_again(tmp_path):
    file = tmp_path / "ledger.jsonl"
    ledger = Ledger(file)
    ledger.record([Key("s", "a", "e1"), Key("s", "a", "e2")], [0.5, 1.0])
    with file.open("a") as stream:
        stream.write('[["s", "a", "e3", 0.')
    again = Ledger(file)
    assert (len(again), again.get(Key("s", "a", "e2")), again.get(Key("s", "a", "e3"))) == (2, 1.0, None)
    again.record([Key("s", "a", "e3")], [0.25])
    assert Ledger(file).get(Key("s", "a", "e3")) == 0.25


def test_damage_before_the_last_line_is_an_error_that_names_the_line(tmp_path):
    file = tmp_path / "ledger.jsonl"
    file.write_text('[["s", "a", "e", 1.0]]\nnonsense\n[["s", "b", "e", 1.0]]\n')
    with pytest.raises(MappingError, match=r"damaged at line 2"):
        Ledger(file)


def test_an_empty_pool_is_an_error():
    with pytest.raises(MappingError, match="no usable adapter"):
        list(Matcher(HashScorer()).match(tasks(1), {}))


def test_progress_counts_up_to_the_total_announced():
    seen = []
    matcher = Matcher(HashScorer(), on_progress=lambda p: seen.append((p.answered, p.total, p.rung, p.survivors)))
    list(matcher.match(tasks(2), pool()))
    assert [answered for answered, *_ in seen] == sorted(answered for answered, *_ in seen)
    assert seen[-1][0] == seen[-1][1] == 2 * matcher.questions(tasks(1)[0], 48)
    assert {(rung, survivors) for _, _, rung, survivors in seen} == {(1, 48), (2, 24), (3, 12), (4, 6)}


def test_time_left_is_judged_by_the_questions_really_asked():
    progress = Progress(1, 100, started=time.monotonic() - 10, answered=60, reused=40)
    assert progress.seconds_left == pytest.approx(20, abs=0.5)
    assert Progress(1, 100, answered=40, reused=40).seconds_left is None
    progress.asking = time.monotonic() - 4  # the screening before it says nothing of questions
    assert progress.seconds_left == pytest.approx(8, abs=0.5)


def test_the_metric_scorer_scores_what_the_model_writes(pico_engine):
    wanted = pico_engine.complete([_request(pico_engine, "q", {"plain": 1.0})])[0].text
    task = Task("t", "contains", [Example("q", wanted), Example("q", "something else, as long")])
    scorer = MetricScorer(pico_engine)
    assert scorer.score(task, [("plain", task.examples[0]), ("plain", task.examples[1])]) == [1.0, 0.0]
    assert scorer.score(task, [("", task.examples[0])]) == [0.0]


def test_a_scorers_identity_changes_with_what_decides_a_score(pico_engine):
    task = Task("t", "exact_match", [Example("q", "short")])
    others = [
        Task("t", "f1", task.examples),
        Task("t", never, task.examples),
    ]
    scorer = MetricScorer(pico_engine)
    ids = {scorer.identity(task), *map(scorer.identity, others), LikelihoodScorer(pico_engine).identity(task)}
    assert len(ids) == 4
    assert scorer.identity(task) == MetricScorer(pico_engine).identity(
        Task("t", "exact_match", task.examples, "words")
    )


def test_the_likelihood_scorer_gives_a_probability(pico_engine):
    task = Task("t", "exact_match", [Example("q", "answer")])
    [chance] = LikelihoodScorer(pico_engine).score(task, [("plain", task.examples[0])])
    [mean] = pico_engine.log_likelihood([_request(pico_engine, "q", {"plain": 1.0})], ["answer"])
    assert 0 < chance < 1
    assert chance == pytest.approx(2.718281828459045**mean)


def never(answer, target):
    return float("nan")


def test_a_metric_that_gives_no_number_is_an_error(pico_engine):
    task = Task("t", never, [Example("q", "answer")])
    with pytest.raises(MappingError, match="metric test_matcher:never of task 't' gave nan"):
        MetricScorer(pico_engine).score(task, [("", task.examples[0])])


def fails(answer, target):
    return answer[10_000]


def test_a_metric_that_fails_is_an_error_that_names_it(pico_engine):
    task = Task("t", fails, [Example("q", "answer")])
    with pytest.raises(MappingError, match=r"metric test_matcher:fails of task 't' failed: IndexError"):
        MetricScorer(pico_engine).score(task, [("", task.examples[0])])


def test_an_example_too_long_for_the_model_is_named_by_its_task(pico_engine):
    task = Task("long", "exact_match", [Example("q" * 2000, "answer")])
    for scorer in (MetricScorer(pico_engine), LikelihoodScorer(pico_engine)):
        with pytest.raises(MappingError, match="example of task 'long' is too long: the prompt has 2019 tokens"):
            scorer.score(task, [("", task.examples[0])])


def test_a_metric_whose_code_changes_is_asked_again(pico_engine, tmp_path, monkeypatch):
    import importlib
    import sys

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    ids = []
    for value in (0.0, 1.0):
        (tmp_path / "my_metric.py").write_text(
            f"def score(answer, target):\n    return {value} # {'x' * int(value)}\n"
        )
        sys.modules.pop("my_metric", None)
        importlib.invalidate_caches()
        __import__("linecache").clearcache()
        task = Task("t", "my_metric:score", [Example("q", "answer")])
        ids.append(MetricScorer(pico_engine).identity(task))
    assert ids[0] != ids[1]


def test_an_adapter_that_overflows_scores_zero_and_cannot_win(tmp_path):
    from conftest import make_adapter, pico_model, pico_tokenizer
    from safetensors.torch import load_file, save_file

    from lorauter_integrations import AdapterPool, LocalEngine
    from lorauter_integrations.mixing import base_shapes

    make_adapter(tmp_path / "aaa", target_modules=["up_proj", "down_proj"])
    weights = tmp_path / "aaa" / "adapter_model.safetensors"
    save_file({name: value * 1e18 for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    engine = LocalEngine(pico_model(), pico_tokenizer(), AdapterPool.from_folder(tmp_path, base_shapes(pico_model())))
    task = Task("t", "f1", [Example("q", "answer")])
    for scorer in (MetricScorer(engine), LikelihoodScorer(engine)):
        assert scorer.score(task, [("aaa", task.examples[0])]) == [0.0]
        [ranking] = Matcher(scorer).match([task], engine.adapters)
        assert ranking.best.is_base


def test_copies_of_an_adapter_and_of_an_example_are_asked_once():
    scorer, twins = HashScorer(), pool(2)
    twins["twin"] = Adapter("twin", Path("nowhere"), "", "hash00", {}, 0)
    example = Example("question", "answer")
    list(Matcher(scorer).match([Task("t", "f1", [example, example, Example("other", "x")])], twins))
    assert len(scorer.asked) == 3 * 2  # base, hash00 and hash01, each on two different examples


def test_a_score_that_is_no_number_never_enters_the_ledger(tmp_path):
    ledger = Ledger(tmp_path / "l")
    with pytest.raises(MappingError, match="not a finite number"):
        ledger.record([Key("s", "a", "e")], [float("nan")])
    assert len(ledger) == 0
    assert not (tmp_path / "l").exists()


def test_a_failed_write_leaves_the_ledger_readable(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "l")
    ledger.record([Key("s", "a", "e")], [1.0])

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MappingError, match=r"cannot be written: .*No space left"):
        ledger.record([Key("s", "b", "e")], [1.0])
    monkeypatch.undo()
    assert ledger.get(Key("s", "b", "e")) is None
    assert len(Ledger(tmp_path / "l")) == 1
    ledger.record([Key("s", "c", "e")], [0.5])
    assert Ledger(tmp_path / "l").get(Key("s", "c", "e")) == 0.5


def _request(engine, text, adapters):
    from lorauter_integrations import GenerationOptions, GenerationRequest, Message, Mixture

    return GenerationRequest([Message("user", text)], Mixture(adapters), GenerationOptions(max_tokens=12))


def test_an_answer_that_can_no_longer_score_is_not_written_to_its_end(pico_engine):
    steps = 0

    def count(*_):
        nonlocal steps
        steps += 1

    hook = pico_engine.mixtures.model.register_forward_hook(count)
    examples = [Example("q", "an answer of many tokens that the pico model never gives")]
    scorer = MetricScorer(pico_engine)
    assert scorer.score(Task("t", "exact_match", examples), [("plain", examples[0])]) == [0.0]
    given_up, steps = steps, 0
    scorer.score(Task("t", "f1", examples), [("plain", examples[0])])
    assert given_up < 5
    assert steps > 60  # F1 counts words anywhere, so its answers are written to the end
    hook.remove()


class InAnyOrder(InProcess):
    """Five batches in flight, done in an order of its own."""

    slots = 5

    def __init__(self, scorers):
        super().__init__(scorers)
        self.chance, self.in_flight = random.Random(1), []

    def take(self):
        self.in_flight.append(len(self._waiting))
        self._waiting.rotate(self.chance.randrange(len(self._waiting)))
        return super().take()


def test_answers_in_any_order_give_the_same_map_and_workers_are_kept_busy(tmp_path):
    one_by_one = list(Matcher(HashScorer()).match(tasks(), pool()))
    scorer, ledger = HashScorer(), Ledger(tmp_path / "l")
    workers = InAnyOrder({"score": scorer})
    rankings = list(Matcher(scorer, ledger, workers=workers).match(tasks(), pool()))
    assert sorted(r.to_json() for r in rankings) == sorted(r.to_json() for r in one_by_one)
    assert len(set(scorer.asked)) == len(scorer.asked) == len(ledger)
    assert max(workers.in_flight) == 5
    assert workers.in_flight[:20] == [5] * 20  # while one task waits for the end of a round, the next one goes on


def test_a_tie_is_decided_by_the_second_scorer():
    class Same(HashScorer):
        @staticmethod
        def value(name, example):
            return float(bool(name))

    class Likelihood(HashScorer):
        def identity(self, task):
            return "likelihood"

        @staticmethod
        def value(name, example):
            return 0.9 if name == "ad03" else 0.5

    likelihood = Likelihood()
    [ranking] = Matcher(Same(), ties=likelihood).match(tasks(1), pool(5))
    assert (ranking.best.adapter, ranking.best.score) == ("ad03", 1.0)
    assert {name for _, name, _ in likelihood.asked} <= {f"ad{i:02d}" for i in range(5)}
    assert ranking.questions == len(likelihood.asked) + Matcher(Same()).questions(tasks(1)[0], 5)


def test_a_ranking_tells_of_the_pool_and_of_every_round():
    [ranking] = Matcher(HashScorer()).match(tasks(1), pool())
    assert (ranking.pool, ranking.screened) == (48, 0)
    assert [len(score.path) for score in ranking.scores].count(4) == 7  # six and the base model
    assert ranking.best.path[-1] == ranking.best.score
    assert 0 < ranking.best.error < 0.1
    other = next(Matcher(HashScorer()).match(tasks(1), pool(49)))
    assert other.pool_hash != ranking.pool_hash
    renamed = {f"other/{name}": adapter for name, adapter in pool().items()}
    assert next(Matcher(HashScorer()).match(tasks(1), renamed)).pool_hash == ranking.pool_hash
