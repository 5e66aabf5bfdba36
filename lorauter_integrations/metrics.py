"""How an answer is scored against a target, in [0, 1]. Knows nothing of tasks or models.

The arithmetic of ROUGE and BLEU is rouge-score's and sacrebleu's, loaded on first use.
"""

from __future__ import annotations

import inspect
import json
import re
import string
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

from lorauter_integrations.errors import TaskError, listing
from lorauter_integrations.locations import imported_function

Metric: TypeAlias = Callable[[str, str], float]
"""(answer, target) -> score in [0, 1], higher is better."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_JSON_STARTS = frozenset(["", *'{["-0123456789tfnNI<`'])
_TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*(?:```)?", re.DOTALL)


def exact_match(answer: str, target: str) -> float:
    """1 when both say the same: case, outer and repeated white space and final full stops do not count.

    The paper's rule (section on evaluation; lower-cased text without ".").
    """
    return float(_plain(answer) == _plain(target))


def exact_text(answer: str, target: str) -> float:
    """1 when both are the same characters, outer white space apart. For tasks where case matters."""
    return float(answer.strip() == target.strip())


def contains(answer: str, target: str) -> float:
    """1 when the answer holds the target somewhere, compared as `exact_match` does."""
    wanted = _plain(target)
    return float(wanted in _plain(answer) if wanted else target.strip() in answer)


def f1(answer: str, target: str) -> float:
    """Harmonic mean of token precision and recall, as in SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250).

    Lower-cased, without punctuation and articles.
    """
    got, wanted = _tokens(answer), _tokens(target)
    if not got or not wanted:
        return float(got == wanted)
    shared = sum((Counter(got) & Counter(wanted)).values())
    return 2 * shared / (len(got) + len(wanted))


def json_equal(answer: str, target: str) -> float:
    """1 when both hold equal JSON values; `<tool_call>` tags or a code fence round them do not count.

    Several tagged calls are compared as a list.
    """
    try:
        return float(bool(_strict(_json(answer), _json(target))))
    except (ValueError, RecursionError):  # a model can write nothing but brackets
        return 0.0


def rouge_l(answer: str, target: str) -> float:
    """ROUGE-L F-measure (Lin 2004) by rouge-score."""
    return float(_rouge().score(target, answer)["rougeL"].fmeasure)


def bleu(answer: str, target: str) -> float:
    """Sentence BLEU by sacrebleu, with effective order, divided by 100."""
    from sacrebleu import sentence_bleu

    return float(sentence_bleu(answer, [target], use_effective_order=True).score) / 100


METRICS: dict[str, Metric] = {
    "bleu": bleu,
    "contains": contains,
    "exact_match": exact_match,
    "exact_text": exact_text,
    "f1": f1,
    "json": json_equal,
    "rouge_l": rouge_l,
}


def can_still_match(text: str, target: str) -> bool:
    """Whether an answer that begins with this text can still be an `exact_match`."""
    so_far, wanted = " ".join(text.lower().split()), _plain(target)
    return wanted.startswith(so_far) or (so_far.startswith(wanted) and not so_far[len(wanted) :].strip(" ."))


def can_still_be_the_text(text: str, target: str) -> bool:
    """Whether an answer that begins with this text can still be an `exact_text`."""
    so_far, wanted = text.lstrip(), target.strip()
    return wanted.startswith(so_far) or (so_far.startswith(wanted) and not so_far[len(wanted) :].strip())


def can_still_be_json(text: str, target: str) -> bool:
    """Whether an answer that begins with this text can still be a JSON value, tags and fences apart."""
    return text.lstrip()[:1] in _JSON_STARTS


STILL_POSSIBLE: dict[str, Callable[[str, str], bool]] = {
    "exact_match": can_still_match,
    "exact_text": can_still_be_the_text,
    "json": can_still_be_json,
}
"""For metrics of whole answers: (text so far, target) -> whether the score can still be above 0."""


def find_metric(name: str) -> Metric:
    """The metric of a name, or of a function written as `package.module:function`, which is imported here.

    Raises:
        TaskError: no such metric, or the function cannot be imported.
    """
    if name in METRICS:
        return METRICS[name]
    return imported_function(_checked(name), "the metric", TaskError)


def metric_name(metric: str | Metric) -> str:
    """The name a metric is stored under, from which `find_metric` finds it again.

    A name is not imported: a process that only routes need not have the function.

    Raises:
        TaskError: not a name of a metric, or a function that cannot be found again by its module and name.
    """
    if isinstance(metric, str):
        return _checked(metric)
    for name, function in METRICS.items():
        if function is metric:
            return name
    name = f"{getattr(metric, '__module__', '?')}:{getattr(metric, '__qualname__', '?')}"
    if "<" in name or find_metric(name) is not metric:
        raise TaskError(
            f"the metric {name} cannot be stored", hint="use a function defined at the top level of a module"
        )
    return name


def metric_source(name: str) -> str:
    """The source text of a user's own metric, so that a changed one is not taken for the old; else empty.

    Raises:
        TaskError: as `find_metric`.
    """
    if name in METRICS:
        return ""
    try:
        return inspect.getsource(find_metric(name))
    except (OSError, TypeError):  # built-in or compiled: there is no source to look at
        return ""


def _checked(name: str) -> str:
    if name not in METRICS and ":" not in name:
        raise TaskError(
            f"unknown metric {name!r}",
            hint=f"use {listing(METRICS)}, or a Python function as package.module:function",
        )
    return name


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".").rstrip()


def _tokens(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _json(text: str) -> Any:
    """The JSON value of an answer, or the list of its tagged calls; text round the tags is no JSON."""
    text = text.strip()
    if text.startswith("<tool_call>"):
        if _TAGGED.sub("", text).strip():
            raise ValueError("text beside the calls")
        calls = [json.loads(body) for body in _TAGGED.findall(text)]
        return calls[0] if len(calls) == 1 else calls
    fenced = _FENCED.fullmatch(text)
    return json.loads(fenced[1] if fenced else text)


def _strict(left: Any, right: Any) -> bool:
    """Equality of JSON values in which true is not 1 (3 and 3.0 are one JSON number)."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_strict(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_strict, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


class _Words:
    """Words of any script; rouge-score's own tokenizer knows a-z and 0-9 only."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())
