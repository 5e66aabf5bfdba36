"""Results as an evaluation leaves them: seeded numbers of a likely size."""

import random

from lorauter_integrations.evaluation.results import (
    Abstention,
    Difference,
    Interval,
    Latency,
    MethodScore,
    Place,
    Results,
    RoutingQuality,
    WrongRoute,
)

METHODS = {
    "base": "No adapter.",
    "oracle": "The task's own adapter, by its label.",
    "random": "One adapter, drawn for each input.",
    "uniform": "All adapters with the same weight.",
    "best_single": "The one adapter that is best over all tasks.",
    "retriever_selection": "LoraRetriever: the adapter whose training inputs are nearest.",
    "retriever_fusion": "LoraRetriever: the three nearest, their matrices averaged.",
    "retriever_mixture": "LoraRetriever: the three nearest, their outputs averaged.",
    "lorauter_paper": "LORAUTER as published: cosine, K = 3, temperature 0.2.",
    "lorauter": "This package's default.",
    "lorahub": "LoRAHub: weights of 20 adapters, searched on five examples of the task.",
    "arrow": "Arrow: token by token, by the adapters' main directions.",
    "spectr": "SpectR: token by token, by the adapters' spectra.",
}
REGIMES = {
    "in_domain": "Nothing.",
    "semi_ood": "The input's own adapter.",
    "ood": "The input's own task and adapter.",
    "ood_hard": "The input's own task, its adapter, and its siblings.",
}
DOMAINS = {
    "agent": ["function_calling", "tool_selection", "text_to_sql"],
    "closed_book_qa": ["arc_challenge", "arc_easy", "natural_questions", "trivia_qa"],
    "commonsense": ["copa", "hellaswag", "piqa", "story_cloze"],
    "coreference": ["definite_pronoun_resolution", "wsc"],
    "nli": ["anli_r1", "anli_r2", "mnli_matched", "mnli_mismatched", "qnli", "snli"],
    "paraphrase": ["glue_mrpc", "glue_qqp", "paws_wiki", "stsb"],
    "reading_comp": ["bool_q", "multirc", "squad_v1", "squad_v2"],
    "sentiment": ["imdb_reviews", "sst2", "yelp_polarity_reviews"],
    "text_repair": ["fix_punct", "true_case"],
    "translation": ["wmt14_enfr", "wmt16_translate_deen"],
}
TASKS = {task: domain for domain, tasks in DOMAINS.items() for task in tasks}
LEVEL = {
    "base": 0.4, "oracle": 1.0, "random": 0.45, "uniform": 0.5, "best_single": 0.62, "retriever_selection": 0.9,
    "retriever_fusion": 0.57, "retriever_mixture": 0.88, "lorauter_paper": 0.955, "lorauter": 0.99,
    "lorahub": 0.55, "arrow": 0.71, "spectr": 0.76,
}  # fmt: skip
DROP = {"in_domain": 1.0, "semi_ood": 0.92, "ood": 0.86, "ood_hard": 0.78}
UNMOVED = {"base", "oracle", "random", "uniform"}
QUERY = "Translate this sentence to German, and keep its tone: 'Well, that went about as well as one could expect.'"


def results(domains=None):
    """13 methods, 4 regimes, 34 tasks of 10 domains, two presets; or other tasks by domain."""
    chance, tasks = random.Random(7), {task: name for name, part in (domains or DOMAINS).items() for task in part}
    oracle = {task: chance.uniform(0.3, 0.9) for task in tasks}
    scores = [
        _score(method, regime, tasks, oracle, chance)
        for regime in REGIMES
        for method in METHODS
        if method != "oracle" or regime == "in_domain"
    ]
    return Results(
        {
            "model": "SmolLM2-135M-Instruct", "encoder": "all-MiniLM-L6-v2", "tasks": f"{len(tasks)}",
            "adapters": "34", "test examples": f"{30 * len(tasks):,}", "seed": "0", "version": "0.4.0",
        },
        METHODS,
        REGIMES,
        scores,
        _differences(scores, chance),
        [_quality("paper", 0.8, tasks, chance), _quality("default", 0.92, tasks, chance)],
        Abstention(
            0.02,
            0.11,
            [chance.gauss(0.42, 0.14) for _ in range(30 * len(tasks))],
            [chance.gauss(0.04, 0.06) for _ in range(200)],
        ),
        _places(tasks, chance),
        [_latency(count, count, 3) for count in (10, 100, 1000, 10_000)]
        + [_latency(1000, 1000, k) for k in (1, 10, 100)]
        + [_latency(1000, count, 3) for count in (10, 100, 10_000)],
        ["Adapters were trained on the tasks' training examples only.", "Scores are of one seed."],
    )  # fmt: skip


def _score(method, regime, tasks, oracle, chance):
    level = LEVEL[method] * (1 if method in UNMOVED else DROP[regime])
    means = {task: min(1.0, oracle[task] * level * chance.uniform(0.93, 1.07)) for task in tasks}
    if method == "oracle":
        means = oracle
    names = sorted(set(tasks.values()))
    domains = {name: _mean(means[task] for task in tasks if tasks[task] == name) for name in names}
    best = {name: _mean(oracle[task] for task in tasks if tasks[task] == name) for name in names}
    value = _mean(domains[name] / best[name] for name in names)
    wide = 0.0 if method == "oracle" else chance.uniform(0.012, 0.035)
    interval = Interval(value, value - wide, value + 0.9 * wide)
    return MethodScore(method, regime, interval, _mean(means.values()), domains, means)


def _mean(values):
    values = list(values)
    return sum(values) / len(values)


def _differences(scores, chance):
    made = []
    for ours in (one for one in scores if one.method == "lorauter"):
        for other in scores:
            if other.regime == ours.regime and other.method != "lorauter":
                value, wide = ours.score.value - other.score.value, chance.uniform(0.01, 0.05)
                made.append(
                    Difference(ours.regime, "lorauter", other.method, Interval(value, value - wide, value + wide))
                )
    return made


def _quality(preset, right, tasks, chance):
    confusion, wrong, names = {}, [], list(tasks)
    for task in names:
        siblings = [other for other in names if tasks[other] == tasks[task] and other != task] or names
        went = {}
        for number in range(30):
            luck = chance.random()
            first = task if luck < right else chance.choice(siblings if luck < 0.97 else names)
            went[first] = went.get(first, 0) + 1
            if first != task and len(wrong) < 30:
                far = chance.uniform(0.3, 0.8)
                text = f"Question {number} of {task}: which of the following | is <right>? … Answer with *one* word."
                wrong.append(WrongRoute(task, first, far, far - chance.uniform(0.01, 0.2), text))
        confusion[task] = went
    inputs = 30 * len(names)
    top1 = sum(went.get(task, 0) for task, went in confusion.items()) / inputs
    wrong.sort(key=lambda one: one.own - one.similarity)
    return RoutingQuality(preset, inputs, top1, (1 + top1) / 2, confusion, wrong)


def _latency(tasks, adapters, k):
    routed = 9.1 + tasks / 4000 + adapters / 90_000 + k / 50
    return Latency(tasks, adapters, k, routed, 1.3 * routed, 8.7)


def _places(tasks, chance):
    centres = {name: (chance.uniform(-1, 1), chance.uniform(-0.7, 0.7)) for name in sorted(set(tasks.values()))}
    made = [
        Place(task, name, centres[name][0] + chance.gauss(0, 0.12), centres[name][1] + chance.gauss(0, 0.12))
        for task, name in tasks.items()
    ]
    near = dict(zip(list(tasks)[-3:], (0.62, 0.25, 0.13), strict=True))
    return [*made, Place(QUERY, "", 0.1, 0.05, near)]
