"""Rankings as a mapping run leaves them: the real halving, over contestants of known chances."""

import random

from lorauter_integrations.adapter_map import AdapterScore, Ranking
from lorauter_integrations.matching.halving import halving_schedule, successive_halving


def score(adapter, path, examples=24, error=0.05):
    return AdapterScore(adapter, "h", path[-1], examples, error, tuple(path))


def ranking(task, scores, pool=3, screened=0, questions=75):
    return Ranking(task, "t", "smol", "f1", tuple(scores), questions, pool, screened)


def played(task, chances, examples=24, pool=None, screened=0):
    """A task's ranking when each contestant ('' = base) answers right with its chance."""
    names = [name for name in chances if name]
    game = successive_halving(names, "", examples, halving_schedule(len(names), examples), task)
    questions, question = 0, next(game)
    while True:
        questions += len(question.contestants) * len(question.examples)
        try:
            question = game.send({name: answers(task, name, chances, question) for name in question.contestants})
        except StopIteration as end:
            scores = [score(s.contestant, s.path, s.examples, s.error) for s in end.value]
            return ranking(task, scores, pool or len(names), screened, questions)


def answers(task, name, chances, question):
    luck = [random.Random(f"{task}/{name}/{number}").random() for number in question.examples]
    return [float(value < chances[name]) for value in luck]


TASKS = (
    "data_to_text", "entities", "function_calling", "passage_qa", "sentiment", "summarise", "text_repair",
    "text_to_sql", "topic", "toxicity", "translate_de", "word_sense",
)  # fmt: skip
WIDE = {task: [f"{task}-r{rank}-{seed}" for rank in (4, 8) for seed in range(3)] for task in TASKS}


def large():
    """12 tasks, each with a shortlist of 32 of 1,500 adapters."""
    chance = random.Random(0)
    crowd = [f"community/{word}-{number:03}" for word in ("noise", "half", "chat", "code") for number in range(373)]
    made = []
    for place, task in enumerate(TASKS):
        own = {name: chance.uniform(0.55, 0.95) for name in WIDE[task]}
        akin = {name: chance.uniform(0.3, 0.6) for name in WIDE[TASKS[(place + 1) % len(TASKS)]][:3]}
        others = {name: chance.uniform(0.0, 0.45) for name in chance.sample(crowd, 32 - len(own) - len(akin))}
        made.append(played(task, {"": 0.2, **own, **akin, **others}, pool=1500, screened=1468))
    return made


def small():
    """Two tasks, three adapters."""
    return [
        played("colours", {"": 0.3, "red": 0.9, "green": 0.5, "blue": 0.1}),
        played("sums", {"": 0.2, "red": 0.1, "green": 0.2, "blue": 0.8}),
    ]
