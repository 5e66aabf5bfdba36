"""Grammars walked token by token: whatever is allowed leads to a valid answer, and every answer ends."""

import ipaddress
import json
import random
import threading
import time
import uuid
from datetime import date
from decimal import Decimal

import llguidance.hf
import pytest
import torch
from conftest import pico_tokenizer
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for
from pydantic import BaseModel, Field
from transformers import ByT5Tokenizer

from lorauter_integrations.engines.grammar import GrammarCompiler
from lorauter_integrations.engines.json_schema import prepared
from lorauter_integrations.errors import EngineError, OptionError
from lorauter_integrations.generation import Grammar

END, START = 256, 257  # the pico tokenizer's special tokens; all other ids are bytes
TOKENIZER = pico_tokenizer()
IDS = {TOKENIZER.convert_ids_to_tokens(token): token for token in range(256)}
CLOSING = [IDS[character] for character in '"]}']


def token_ids(text):
    return TOKENIZER(text, add_special_tokens=False).input_ids


@pytest.fixture(scope="module")
def compiler():
    return GrammarCompiler(TOKENIZER, 258, frozenset({END}))


def choices(matcher):
    return matcher.allowed().nonzero()[:, 0].tolist()


def walk(matcher, choose, most=20_000):
    """Choose among the allowed tokens until the answer ends; returns its text."""
    tokens = []
    while not matcher.complete:
        token = choose(choices(matcher))
        matcher.take(token)
        if token != END:
            tokens.append(token)
        assert len(tokens) < most
    return TOKENIZER.decode(tokens)


def at_random(seed):
    """Any allowed token, with a liking for those that close a string or a list: the walk should not take long."""
    generator = random.Random(seed)
    hurry = generator.uniform(0.05, 0.5)

    def choose(tokens):
        closing = [token for token in tokens if token in CLOSING]
        return generator.choice(closing if closing and generator.random() < hurry else tokens)

    return choose


def without_end(tokens):
    """Never closes, and never ends, as long as there is another way."""
    going_on = [token for token in tokens if token not in CLOSING and token != END]
    return max(going_on or tokens)


def accepts(matcher, text):
    """Whether the text is a whole answer."""
    try:
        for token in token_ids(text):
            matcher.take(token)
    except EngineError:
        return False
    return bool(matcher.allowed()[END])


DRAFT_7 = "http://json-schema.org/draft-07/schema#"
STRING, INTEGER, NUMBER, NULL = ({"type": kind} for kind in ("string", "integer", "number", "null"))
TREE = {
    "type": "object",
    "properties": {"name": {"enum": ["a", "b"]}, "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
    "required": ["name", "children"],
}
SHAPES = {
    "Square": {"type": "object", "properties": {"kind": {"const": "square"}, "side": NUMBER}, "required": ["kind"]},
    "Dot": {"type": "object", "properties": {"kind": {"const": "dot"}}, "required": ["kind"]},
}
SCHEMAS = {
    "string": STRING,
    "integer": INTEGER,
    "number": NUMBER,
    "boolean": {"type": "boolean"},
    "null": NULL,
    "anything": {},
    "bounded string": {"type": "string", "minLength": 2, "maxLength": 4},
    "bounded integer": {"type": "integer", "minimum": -5, "maximum": 120},
    "open interval": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "small open interval": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.066},
    "steps": {"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 100},
    "whole steps": {"type": "integer", "multipleOf": 7},
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    "pattern anywhere": {"type": "string", "pattern": "b+"},
    "enum": {"enum": ["a", 1, None, 2.5, [1, "x"], {"k": [True]}]},
    "const": {"const": {"a": [1, 2], "b": "é"}},
    "unicode": {
        "type": "object",
        "properties": {"größe": {"enum": ["klein", "groß", "大きい", "🙂"]}},
        "required": ["größe"],
    },
    "quotes": {"enum": ['say "hi"', "back\\slash", "new\nline", "<|im_end|>"]},
    "flat object": {"type": "object", "properties": {"name": STRING, "age": INTEGER}, "required": ["name", "age"]},
    "optional properties": {"type": "object", "properties": {"a": NULL, "b": INTEGER, "c": {"type": "boolean"}}},
    "nested objects": {"properties": {"a": {"properties": {"b": {"properties": {"c": INTEGER}, "required": ["c"]}}}}},
    "bare object": {"type": "object"},
    "object that takes nothing": {"type": "object", "properties": {}, "additionalProperties": False},
    "dict[str, int]": {"type": "object", "additionalProperties": INTEGER},
    "dict": {"type": "object", "additionalProperties": True},
    "dict that is not empty": {"type": "object", "additionalProperties": INTEGER, "minProperties": 1},
    "typed rest": {"properties": {"a": NULL}, "required": ["a"], "additionalProperties": {"type": "boolean"}},
    "patternProperties": {"patternProperties": {"^x": INTEGER, "^y": NULL}},
    "array": {"type": "array", "items": INTEGER},
    "bounded array": {"type": "array", "items": NULL, "minItems": 2, "maxItems": 3},
    "array of objects": {"type": "array", "items": {"properties": {"k": {"enum": ["x", "y"]}}, "required": ["k"]}},
    "tuple": {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2},
    "tuple of draft 7": {"$schema": DRAFT_7, "type": "array", "items": [INTEGER, NULL], "additionalItems": False},
    "optional": {"anyOf": [STRING, NULL]},
    "list of types": {"type": ["integer", "string", "null"], "maximum": 9},
    "union of objects": {"anyOf": [SHAPES["Square"], SHAPES["Dot"], INTEGER]},
    "oneOf": {"oneOf": [{"$ref": "#/$defs/Square"}, {"$ref": "#/$defs/Dot"}], "$defs": SHAPES},
    "allOf": {
        "allOf": [{"$ref": "#/$defs/Dot"}, {"properties": {"size": INTEGER}, "required": ["size"]}],
        "$defs": SHAPES,
    },
    "beside a union": {"properties": {"a": NULL, "b": NULL}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "recursion": {"$ref": "#/$defs/Tree", "$defs": {"Tree": TREE}},
    "recursion of the root": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
    "recursion in a union": {"anyOf": [INTEGER, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]},
    "names like keywords": {
        "properties": dict.fromkeys(("not", "$ref", "properties"), NULL),
        "required": ["not"],
    },
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_every_walk_ends_in_json_that_is_valid_for_the_callers_schema(compiler, schema):
    validator = validator_for(schema, default=Draft202012Validator)
    validator.check_schema(schema)
    for seed in range(8):
        value = json.loads(walk(compiler.matcher(Grammar.json_schema(schema)), at_random(seed)))
        validator(schema).validate(value)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("uuid", uuid.UUID),
        ("ipv4", ipaddress.IPv4Address),
        ("ipv6", ipaddress.IPv6Address),
        ("date", date.fromisoformat),
    ],
)
def test_a_format_is_kept(compiler, name, read):
    matcher = compiler.matcher(Grammar.json_schema({"type": "string", "format": name}))
    assert read(json.loads(walk(matcher, at_random(3))))


class Line(BaseModel):
    article: str = Field(min_length=1)
    price: Decimal
    parts: "list[Line] | None" = None


class Invoice(BaseModel):
    """Everything that people put into such a model."""

    lines: list[Line] = Field(max_length=2)
    to: tuple[str, int]
    rate: float = Field(gt=0, lt=1)
    notes: dict[str, str] = Field(default_factory=dict)


def test_a_pydantic_model_comes_back(compiler):
    grammar = Grammar.json_schema(Invoice.model_json_schema(mode="serialization"))
    for seed in range(20):
        text = walk(compiler.matcher(grammar), at_random(seed))
        Draft202012Validator(Invoice.model_json_schema(mode="serialization")).validate(json.loads(text))


@pytest.mark.parametrize(
    ("schema", "most"),
    [
        (NUMBER, 1 + 15 + 1 + 9),
        (INTEGER, 1 + 19),
        (STRING, 2 + 512 * len("\\u0000")),
        ({"type": "string", "pattern": "^a+$"}, 2 + 512),
        ({"type": "array", "items": NULL}, 2 + 32 * len("null, ")),
        ({"type": "object", "additionalProperties": NULL}, 2 + 32 * (64 * len("\\u0000") + len('"": null, '))),
        ({"type": "array", "items": {"$ref": "#"}, "maxItems": 3}, 300),
    ],
    ids=["number", "integer", "string", "pattern", "array", "dict", "recursion"],
)
def test_even_a_model_that_never_wants_to_end_is_brought_to_an_end(compiler, schema, most):
    text = walk(compiler.matcher(Grammar.json_schema(schema)), without_end)
    assert len(text.encode()) <= most
    Draft202012Validator(schema).validate(json.loads(text))


def test_spaces_stand_after_commas_and_colons_and_nowhere_else(compiler):
    grammar = Grammar.json_schema({"properties": {"a": NULL, "b": {"items": NULL}}, "required": ["a", "b"]})
    assert accepts(compiler.matcher(grammar), '{"a": null, "b": [null, null]}')
    for text in ('{"a":null,"b":[null]}', '{ "a": null, "b": []}', '{"a": null, "b": []} ', '{"a": null,\n"b": []}'):
        assert not accepts(compiler.matcher(grammar), text)


def test_nothing_but_an_end_token_follows_a_whole_answer():
    matcher = GrammarCompiler(TOKENIZER, 258, frozenset({END, START})).matcher(Grammar.json_schema({"enum": ["a"]}))
    for token in token_ids('"a"'):
        assert not matcher.complete
        assert choices(matcher) == [token]
        matcher.take(token)
    assert matcher.complete
    assert choices(matcher) == [END, START]


@pytest.mark.parametrize("end", [END, START])
def test_an_answer_that_may_go_on_may_also_end_with_every_end_token(end):
    matcher = GrammarCompiler(TOKENIZER, 258, frozenset({END, START})).matcher(Grammar.json_schema(INTEGER))
    digits = [IDS[digit] for digit in "0123456789"]
    assert choices(matcher) == sorted([IDS["-"], *digits])
    matcher.take(IDS["7"])
    assert choices(matcher) == [*sorted(digits), END, START]
    assert not matcher.complete
    matcher.take(end)
    assert matcher.complete


def test_the_mask_is_as_wide_as_the_logits_and_leaves_out_ids_without_a_token():
    for vocabulary in (258, 300, 320):
        matcher = GrammarCompiler(TOKENIZER, vocabulary, frozenset({END})).matcher(Grammar.lark(r"start: /(.|\n)*/"))
        mask = matcher.allowed()
        assert (mask.shape, mask.dtype, mask.device.type) == ((vocabulary,), torch.bool, "cpu")
        assert mask[END]
        assert not mask[START:].any()


def test_a_token_that_does_not_fit_is_an_error_and_stays_one(compiler):
    matcher = compiler.matcher(Grammar.json_schema({"enum": ["a"]}))
    with pytest.raises(EngineError, match=rf"token {IDS['x']} does not fit the grammar: .* applying 'x'$"):
        matcher.take(IDS["x"])
    with pytest.raises(EngineError, match=r"the grammar cannot be followed: .* applying 'x'\nHint"):
        matcher.allowed()
    assert not matcher.complete


def test_an_answer_cannot_end_too_early(compiler):
    matcher = compiler.matcher(Grammar.json_schema({"enum": ["a"]}))
    matcher.take(IDS['"'])
    with pytest.raises(EngineError, match=f"token {END} does not fit"):
        matcher.take(END)


def test_matchers_of_one_grammar_are_compiled_once_and_go_their_own_ways(compiler, monkeypatch):
    grammar = Grammar.json_schema({"enum": ["once", "twice"]})
    first = compiler.matcher(grammar)
    for token in token_ids('"o'):
        first.take(token)
    monkeypatch.setattr(llguidance, "LLMatcher", None)
    assert accepts(compiler.matcher(grammar), '"twice"')
    assert choices(first) == token_ids("n")


LARK = [
    ('start: "yes" | "no"', ["yes", "no"], ["maybe", "y", "yesno"]),
    ('start: WORD (", " WORD)*\nWORD: /[a-z]{1,3}/', ["a", "ab, c"], ["abcd", "a,b", ""]),
    (r"start: /[0-9]+(\.[0-9]{2})?/", ["12", "3.50"], ["3.5", ".50"]),
    ('start: "(" start ")" | "x"', ["x", "((x))"], ["((x)", "()"]),
    (
        'start: "<call>" %json ' + json.dumps(prepared({"properties": {"a": {}}})) + ' "</call>"',
        ['<call>{"a": [1, null]}</call>', "<call>{}</call>"],
        ["<call>{}", '<call>{"b": 1}</call>', '<call>{"a":1}</call>'],
    ),
]


@pytest.mark.parametrize(("text", "yes", "no"), LARK, ids=["choice", "list", "number", "recursion", "json"])
def test_a_lark_grammar_is_kept(compiler, text, yes, no):
    assert all(accepts(compiler.matcher(Grammar.lark(text)), answer) for answer in yes)
    assert not any(accepts(compiler.matcher(Grammar.lark(text)), answer) for answer in no)


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        (Grammar.lark("begin: /a/"), r"the lark grammar cannot be compiled: no start rule found\nHint: see https"),
        (Grammar.lark("start: other"), r'unknown name: "other"\n   1 \| start: other'),
        (Grammar.lark("start: /a(/"), r"invalid regex \"a\(\""),
        (Grammar.lark('start: %json {"not": {}}'), r'Unimplemented keys: \["not"\]'),
        (Grammar.json_schema({"pattern": "(?=a)b"}), r"\$\.pattern: look-around, .*\nHint: write a simpler"),
        (Grammar.json_schema({"anyOf": [{"pattern": "(?=a)b"}]}), "look-ahead"),
        (
            Grammar.json_schema({"type": "word"}),
            r"the json_schema grammar cannot be compiled: Invalid type: word\nHint: simplify",
        ),
        (Grammar.json_schema({"minimum": 0.3, "maximum": 0.4, "multipleOf": 0.25}), "does not contain a multiple"),
        (Grammar.json_schema({"items": {"not": {}}}), r"\$\.items\.not: this keyword cannot be enforced"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_the_reason(compiler, grammar, message):
    with pytest.raises(OptionError, match=message) as caught:
        compiler.matcher(grammar)
    assert "<state>" not in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 5


def test_a_slow_tokenizer_is_refused():
    compiler = GrammarCompiler(ByT5Tokenizer(), 384, frozenset({1}))
    with pytest.raises(
        EngineError, match=r"ByT5Tokenizer cannot be used with grammars: Only fast .*\nHint: .*tokenizer\.json"
    ):
        compiler.matcher(Grammar.json_schema({}))


def test_fewer_logits_than_tokens_are_refused():
    with pytest.raises(EngineError, match="vocab size too small; 200 vs 258"):
        GrammarCompiler(TOKENIZER, 200, frozenset({10})).matcher(Grammar.json_schema({}))


def test_a_model_without_an_end_token_is_refused():
    with pytest.raises(EngineError, match=r"no end token.*\nHint: set eos_token"):
        GrammarCompiler(TOKENIZER, 258, frozenset()).matcher(Grammar.json_schema({}))


def test_the_tokenizer_is_read_once_and_only_when_it_is_needed(monkeypatch):
    read = []

    def slowly(*arguments, **keywords):
        read.append(threading.get_ident())
        time.sleep(0.05)
        return genuine(*arguments, **keywords)

    genuine = llguidance.hf.from_tokenizer
    monkeypatch.setattr(llguidance.hf, "from_tokenizer", slowly)
    compiler = GrammarCompiler(TOKENIZER, 258, frozenset({END}))
    assert read == []
    answers = []

    def work(number):
        matcher = compiler.matcher(Grammar.json_schema({"const": number % 3}))
        answers.append((str(number % 3), walk(matcher, at_random(number))))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 1
    assert len(answers) == 8
    assert all(expected == text for expected, text in answers)


def test_a_matcher_goes_from_thread_to_thread(compiler):
    matcher = compiler.matcher(Grammar.json_schema({"enum": ["ab"]}))
    for token in token_ids('"ab"'):
        thread = threading.Thread(target=matcher.take, args=(token,))
        thread.start()
        thread.join()
    assert matcher.complete


def test_the_users_tokenizer_is_left_as_it_was():
    tokenizer = pico_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=7)
    before = tokenizer.backend_tokenizer.to_str()
    GrammarCompiler(tokenizer, 258, frozenset({END})).matcher(Grammar.json_schema({}))
    assert tokenizer.backend_tokenizer.to_str() == before
