"""Screening: on the pico model with real gradients, and at the size of a real pool with a hand-written engine."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import pico_model, pico_tokenizer
from safetensors.torch import save_file

from lorauter_integrations import AdapterPool, Example, Ledger, LocalEngine, Matcher, Task
from lorauter_integrations.engines import Descent
from lorauter_integrations.matching import SURE, Rules, Screen, screened_schedule
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.pool import Adapter, LowRankPart

TOPICS = ["colours of things", "sums of numbers", "names of places"]


def pico_tasks():
    return [
        Task(f"t{n}", "exact_match", [Example(f"{topic} number {i}", f"{topic[::-1]} {i}") for i in range(4)])
        for n, topic in enumerate(TOPICS)
    ]


@pytest.fixture
def engine(pico_pool_folder, tmp_path):
    """The usual pico adapters, and for each task one that goes its loss's way, once strong and once very weak."""
    folder = tmp_path / "pool"
    folder.mkdir()
    for place in pico_pool_folder.iterdir():
        (folder / place.name).symlink_to(place)
    bare = LocalEngine(pico_model(), pico_tokenizer(), AdapterPool.from_folder(folder, base_shapes(pico_model())))
    screen = Screen(bare, Ledger(), tmp_path / "first")
    list(screen.look(pico_tasks(), bare.adapters))
    files = {file.stem.rpartition("-")[2]: file for file in (tmp_path / "first").iterdir()}
    for task in pico_tasks():
        descent = Descent.load(files[task.content_hash])
        for name, strength in (("strong", 50.0), ("weak", 1e-3)):
            write(folder / f"{task.name}-{name}", descent, strength)
    return LocalEngine(pico_model(), pico_tokenizer(), AdapterPool.from_folder(folder, base_shapes(pico_model())))


def write(folder, descent, strength):
    """An adapter that is a step along a direction: the two greatest parts of each module's."""
    tensors = {}
    for module, (left, right) in descent.parts.items():
        u, s, v = torch.linalg.svd(left.float() @ right.float().T)
        tensors[f"base_model.model.{module}.lora_A.weight"] = v[:2].contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = (u[:, :2] * s[:2] * strength).contiguous()
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = '{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 2}'
    (folder / "adapter_config.json").write_text(config)


def test_adapters_that_go_a_tasks_way_come_first_whatever_their_strength(engine):
    screen = Screen(engine, Ledger(), size=4)
    tasks = pico_tasks()
    list(screen.look(tasks, engine.adapters))
    for task in tasks:
        shortlist = screen.shortlist(task, engine.adapters)
        assert len(shortlist) == len(set(shortlist)) == 4
        assert {f"{task.name}-strong", f"{task.name}-weak"} <= set(shortlist)


def test_a_pool_of_the_shortlists_size_is_not_screened(engine):
    assert not Screen(engine, Ledger(), size=len(engine.adapters)).needed(engine.adapters)
    assert Screen(engine, Ledger(), size=len(engine.adapters) - 1).needed(engine.adapters)


def test_what_is_known_is_not_found_again(engine, tmp_path, monkeypatch):
    tasks = pico_tasks()
    done = list(Screen(engine, Ledger(tmp_path / "l"), tmp_path / "g").look(tasks, engine.adapters))
    assert done == [(0, 12), (0, 12), (0, 12), (12, 12)]
    assert len(list((tmp_path / "g").iterdir())) == 3

    def never(*_):
        raise AssertionError("asked again")

    monkeypatch.setattr(engine, "descent", never)
    fresh = Screen(engine, Ledger(tmp_path / "l"), tmp_path / "g", size=4)
    smaller = {name: adapter for name, adapter in engine.adapters.items() if name != "plain"}
    with monkeypatch.context() as patch:
        patch.setattr(engine, "slopes", never)
        assert list(fresh.look(tasks, engine.adapters)) == []
        assert list(fresh.look(tasks[:2], smaller)) == []
    changed = {name: replace(a, content_hash="new") if name == "plain" else a for name, a in engine.adapters.items()}
    assert list(fresh.look(tasks, changed)) == [
        (0, 1),
        (0, 1),
        (0, 1),
        (1, 1),
    ]  # from the kept directions: the model is not run


def test_more_tasks_than_fit_are_looked_at_in_groups(engine, monkeypatch):
    whole, parts = Screen(engine, Ledger(), size=4), Screen(engine, Ledger(), size=4)
    tasks = pico_tasks()
    list(whole.look(tasks, engine.adapters))
    monkeypatch.setattr("lorauter_integrations.matching.screening.TASKS_AT_ONCE", 2)
    assert list(parts.look(tasks, engine.adapters)) == [(0, 24), (0, 24), (12, 24), (12, 24), (24, 24)]
    for task in tasks:
        assert parts.shortlist(task, engine.adapters) == whole.shortlist(task, engine.adapters)


def test_of_two_copies_one_is_on_the_list_as_long_as_there_are_others(engine):
    copies = {**engine.adapters, "t0-twin": engine.adapters["t0-strong"]}
    twin = LocalEngine(pico_model(), pico_tokenizer(), copies)
    tasks = pico_tasks()
    for size, both in ((4, False), (len(copies), True)):
        screen = Screen(twin, Ledger(), size=size)
        list(screen.look(tasks, copies))
        assert ({"t0-twin", "t0-strong"} <= set(screen.shortlist(tasks[0], copies))) == both


# ------------------------------------------------------------------ a pool of 1,500


class Engine1500:
    """Says how adapters point from their names: `ad0017` was trained for topic 17; counts what it is asked."""

    identity = "engine"

    def __init__(self):
        self.asked = self.gradients = 0

    def descent(self, requests, targets, modules):
        self.gradients += 1
        number = float(requests[0].messages[0].content.split()[1])
        return Descent({module: (torch.tensor([[number]]), torch.ones(1, 1)) for module in modules}, 1.0)

    def slopes(self, names, descents):
        self.asked += len(names) * len(descents)
        topics = [str(int(descent.parts["m"][0])) for descent in descents]
        return [[0.5 * (topic(name) == wanted) + 0.2 * luck(name, wanted) for wanted in topics] for name in names]

    def likeness(self, name, others):
        return [float(self.kind(name) == self.kind(other)) for other in others]

    def kind(self, name):
        return name


class Scorer1500:
    """The adapter of a topic is good at its task, some of its kind better than others; counts what it is asked."""

    base_model = "base"

    def __init__(self):
        self.asked = 0

    def identity(self, task):
        return f"score {task.name}"

    def score(self, task, pairs):
        self.asked += len(pairs)
        wanted = task.name.removeprefix("topic")
        return [float(luck(name, example.input) < skill(name, wanted)) for name, example in pairs]


def luck(*of):
    return hashlib.sha256("/".join(of).encode()).digest()[0] / 256


def topic(name):
    return str(int(name[2:]) % 40)


def skill(name, wanted):
    if not name:
        return 0.1
    return 0.55 + 0.3 * luck(name) if topic(name) == wanted else 0.15


def numbered(count):
    parts = {"m": LowRankPart(1, 1, 1, 1.0, ("a", "b"))}
    return {f"ad{i:04d}": Adapter(f"ad{i:04d}", Path("nowhere"), "", f"hash{i:04d}", parts, 0) for i in range(count)}


def topics(count=12, examples=50):
    return [
        Task(f"topic{t}", "exact_match", [Example(f"about {t} number {i}", "x") for i in range(examples)])
        for t in range(count)
    ]


def run(ledger, pool, tasks=None, known=(), folder=None, engine=None):
    """Map, and return what was asked: questions and slopes."""
    engine, scorer = engine or Engine1500(), Scorer1500()
    matcher = Matcher(scorer, ledger, rules=Rules(screened_schedule, SURE), screen=Screen(engine, ledger, folder))
    rankings = {ranking.task: ranking for ranking in matcher.match(tasks or topics(), pool, known=known)}
    return rankings, scorer.asked, engine.asked


@pytest.fixture
def mapped(tmp_path):
    ledger = Ledger()
    return ledger, *run(ledger, numbered(1500), folder=tmp_path)


def test_the_winner_is_of_the_tasks_kind_at_a_small_part_of_the_papers_cost(mapped):
    _, rankings, questions, slopes = mapped
    assert all(topic(rankings[f"topic{t}"].best.adapter) == str(t) for t in range(12))
    assert all((ranking.pool, ranking.screened) == (1500, 1476) for ranking in rankings.values())
    assert questions == sum(ranking.questions for ranking in rankings.values()) <= 12 * 356
    assert 10 * (questions + 12 * 3 * 16) < 12 * 4385  # 4,385: the paper's schedule for 1,500 and 50 examples
    assert slopes == 12 * 1500


PROMISING = next(n for n in range(1523, 9999, 40) if luck(f"ad{n:04d}", "3") > 0.99)


@pytest.mark.parametrize("newcomer", [PROMISING, 1530], ids=["promising at task 3", "for none of the tasks"])
def test_one_more_adapter_costs_less_than_a_hundredth_of_it_all(mapped, newcomer, tmp_path):
    ledger, before, questions, slopes = mapped
    name = f"ad{newcomer:04d}"
    pool = numbered(1500) | {name: numbered(newcomer + 1)[name]}
    engine = Engine1500()
    after, more_questions, more_slopes = run(ledger, pool, folder=tmp_path, engine=engine)
    assert (more_slopes, engine.gradients) == (12, 0)  # only the new one, once for each task; no pass of the model
    assert more_questions + more_slopes < 0.01 * (questions + slopes)
    assert more_questions <= 50  # all examples of its one task at most: 1.2 % of the questions
    for task, ranking in after.items():
        assert ranking.best.adapter in (before[task].best.adapter, name)
    assert (more_questions > 0) == (name in {score.adapter for score in after["topic3"].scores})
    assert (name in {score.adapter for score in after["topic3"].scores}) == (newcomer == PROMISING)


def test_an_adapter_of_a_module_that_no_other_has_needs_its_gradients_only(mapped, tmp_path):
    ledger, *_ = mapped
    part = LowRankPart(1, 1, 1, 1.0, ("a", "b"))
    other = Adapter("ad1530", Path("nowhere"), "", "hash1530", {"m": part, "n": part}, 0)
    engine = Engine1500()
    _, more_questions, slopes = run(ledger, numbered(1500) | {"ad1530": other}, folder=tmp_path, engine=engine)
    assert (slopes, engine.gradients, more_questions) == (12, 12, 0)
    assert run(ledger, numbered(1500) | {"ad1530": other}, folder=tmp_path)[1:] == (0, 0)


def test_one_task_alone_has_the_adapters_of_its_kind_on_its_shortlist():
    rankings, *_ = run(Ledger(), numbered(1500), topics(1))
    assert {topic(score.adapter) for score in rankings["topic0"].scores if score.adapter} == {"0"}


def test_copies_take_one_place_however_many_there_are():
    class ManyCopies(Engine1500):
        """The best sixty for a task are checkpoints of two runs."""

        def kind(self, name):
            return f"run {int(name[2:]) % 80}" if topic(name) == "0" else name

    ledger, pool = Ledger(), numbered(1500)
    rankings, *_ = run(ledger, pool, topics(2), engine=ManyCopies())
    asked = [score.adapter for score in rankings["topic0"].scores if score.adapter]
    assert len(asked) == 24
    assert sorted(topic(name) == "0" for name in asked) == [False] * 22 + [True] * 2


def test_a_new_task_asks_about_itself_only(mapped):
    ledger, *_ = mapped
    scorer, engine = Scorer1500(), Engine1500()
    matcher = Matcher(scorer, ledger, rules=Rules(screened_schedule, SURE), screen=Screen(engine, ledger))
    [ranking] = matcher.match(topics(13)[12:], numbered(1500), known=topics(13))
    assert topic(ranking.best.adapter) == "12"
    assert scorer.asked == ranking.questions
    assert engine.asked == 1500


def test_a_changed_adapter_is_looked_at_again(mapped):
    ledger, before, *_ = mapped
    winner = before["topic3"].best.adapter
    pool = numbered(1500)
    pool[winner] = replace(pool[winner], content_hash="changed")
    after, questions, slopes = run(ledger, pool)
    assert (slopes, after["topic3"].best) == (12, replace(before["topic3"].best, content_hash="changed"))
    assert questions == 50  # the winner's, on all examples
