"""Answers with calls walked token by token: whatever is allowed becomes text, calls with valid arguments, or JSON."""

import json
import logging
import random

import pytest
import torch
from conftest import pico_tokenizer
from jsonschema import Draft202012Validator

from lorauter_integrations import GenerationOptions, GenerationRequest, Message
from lorauter_integrations.engines.grammar import GrammarCompiler
from lorauter_integrations.engines.sampling import Sampler
from lorauter_integrations.engines.tool_grammar import MOST_CALLS
from lorauter_integrations.errors import EngineError, OptionError
from lorauter_integrations.generation import Grammar
from lorauter_integrations.tool_calls import HERMES, CallForm

END = 256
TOKENIZER = pico_tokenizer()
BARE = CallForm("", "", None, "parameters")
LINES = CallForm("", "", "\n")
LIST = CallForm("functools[", "]", None)
ODD = CallForm("\n~/call [*]+ \\d:", " ;", " & ", "parameters")
FORMS = {"hermes": HERMES, "bare": BARE, "lines": LINES, "list": LIST, "odd": ODD}
COMPILERS = {form: GrammarCompiler(TOKENIZER, 258, frozenset({END}), form) for form in FORMS.values()}

INTEGER, STRING = {"type": "integer"}, {"type": "string", "maxLength": 8}


def tool(name, parameters=None):
    function = {"name": name, "description": "Any."} | ({} if parameters is None else {"parameters": parameters})
    return {"type": "function", "function": function}


def record(required=None, **properties):
    required = list(properties if required is None else required)
    return {"type": "object", "properties": properties, "required": required}


ADD = tool("add", record(a=INTEGER, b=INTEGER))
ADDRESS = tool("address", record(["street"], street=STRING, a={"enum": ["x", "y"]}))
NODE = {"$ref": "#/$defs/Node"}
TREE = tool("tree", record(root=NODE) | {"$defs": {"Node": record([], size=INTEGER, child=NODE)}})
LIKE = tool("like", record(root=NODE) | {"$defs": {"Node": {"enum": ["a", "b"]}}})
ODD_NAME = 'say "hi" \\ /x/ }{ # // %json\n<é🙂>'
EVERY = [
    ADD,
    ADDRESS,
    TREE,
    LIKE,
    tool(ODD_NAME),
    tool("now", {}),
    tool("later", {"type": "object", "properties": {}}),
]
PERSON = record(["name"], name=STRING, age=INTEGER)


def token_ids(text):
    return TOKENIZER(text, add_special_tokens=False).input_ids


def matcher(form, *tools, **options):
    return COMPILERS[form].matcher(Grammar.tool_calls(tools, **options))


def begun(walk, text):
    """The walk, some way along."""
    for token in token_ids(text):
        walk.take(token)
    return walk


def accepts(form, text, /, *tools, **options):
    """Whether the text is a whole answer."""
    try:
        walk = begun(matcher(form, *tools, **options), text)
    except EngineError:
        return False
    return bool(walk.allowed()[END])


def body(name, form=HERMES, /, **arguments):
    return json.dumps({"name": name, form.arguments: arguments}, ensure_ascii=False)


def call(name, form=HERMES, /, **arguments):
    return form.begin + body(name, form, **arguments) + form.end


def read(text, form):
    """The bodies of an answer that is nothing but calls."""
    bodies = []
    while text:
        text = text.removeprefix(form.between if bodies else "")
        assert text.startswith(form.begin)
        value, end = json.JSONDecoder().raw_decode(text, len(form.begin))
        assert text.startswith(form.end, end)
        bodies.append(value)
        text = text[end + len(form.end) :]
    return bodies


def check(bodies, tools, form):
    schemas = {one["function"]["name"]: one["function"].get("parameters", {}) for one in tools}
    for value in bodies:
        assert list(value) == ["name", form.arguments]
        schema = schemas[value["name"]]
        Draft202012Validator(schema).validate(value[form.arguments])
        if not schema.get("properties"):
            assert value[form.arguments] == {}


def walked(walk, seed, most=60_000):
    """A random answer, with a liking for tokens that close strings and lists, and for the end."""
    generator = random.Random(seed)
    hurry = generator.uniform(0.05, 0.5)
    tokens = []
    while not walk.complete:
        choices = walk.allowed().nonzero()[:, 0].tolist()
        closing = [token for token in choices if token == END or TOKENIZER.decode([token]) in '"]}']
        token = generator.choice(closing if closing and generator.random() < hurry else choices)
        walk.take(token)
        tokens.append(token)
        assert len(tokens) < most
    return TOKENIZER.decode([token for token in tokens if token != END])


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("parallel", [True, False])
def test_every_walk_ends_in_calls_with_arguments_that_are_valid_for_their_tool(form, parallel):
    called = set()
    for seed in range(12):
        bodies = read(walked(matcher(form, *EVERY, parallel=parallel), seed), form)
        check(bodies, EVERY, form)
        assert 1 <= len(bodies) <= (MOST_CALLS if parallel and form.between is not None else 1)
        called |= {value["name"] for value in bodies}
    assert len(called) > 1


@pytest.mark.parametrize("form", [HERMES, LIST, ODD], ids=["hermes", "list", "odd"])
@pytest.mark.parametrize("answer", [None, PERSON], ids=["text", "text or json"])
def test_a_walk_that_writes_text_ends_without_the_mark_or_with_whole_calls(form, answer):
    mark = form.begin.strip()
    for seed in range(6):
        for start in ("", "a {", "é\n\n"):
            text = start + walked(begun(matcher(form, *EVERY, text=True, answer=answer), start), seed)
            if answer and text.startswith("{"):
                Draft202012Validator(answer).validate(json.loads(text))
            elif mark in text:  # a random walk may begin with a call, and does not find the mark in a text
                check(read(text, form), EVERY, form)
            else:
                assert text.strip()
        start = f"So, {mark[:-1]} is not {form.begin}"
        rest = form.begin + walked(begun(matcher(form, *EVERY, text=True, answer=answer), start), seed)
        check(read(rest, form), EVERY, form)


@pytest.mark.parametrize("form", [BARE, LINES], ids=["bare", "lines"])
@pytest.mark.parametrize("answer", [None, PERSON], ids=["text", "text or json"])
def test_without_a_mark_a_walk_that_begins_with_a_brace_ends_in_calls_or_the_answer(form, answer):
    kinds = set()
    for seed in range(20):
        start = '{"name": "add"' if seed % 2 else "{"
        text = start + walked(begun(matcher(form, *EVERY, text=True, answer=answer), start), seed)
        value, _ = json.JSONDecoder().raw_decode(text)
        if form.arguments in value:
            check(read(text, form), EVERY, form)
        else:
            Draft202012Validator(answer).validate(json.loads(text))
        kinds.add(form.arguments in value)
        text = walked(begun(matcher(form, *EVERY, text=True, answer=answer), "a {"), seed)
        assert form.arguments not in text
    assert kinds == ({True, False} if answer else {True})


HERMES_TEXTS = [
    "a",
    "{",
    "{}",
    "é 大きい 🙂",
    "a < b",
    "a <tool",
    "<tool_call",
    "<<tool_cal<tool_callx\n\n",
    "</tool_call>",
    " a\n",
]


@pytest.mark.parametrize("text", HERMES_TEXTS)
@pytest.mark.parametrize("tools", [[ADD], []], ids=["with tools", "without tools"])
def test_text_may_hold_anything_but_the_mark(text, tools):
    assert accepts(HERMES, text, *tools, text=True)
    assert not accepts(HERMES, text + "<tool_call>", *tools, text=True)
    assert not accepts(HERMES, text + "<tool_call> a", *tools, text=True)


@pytest.mark.parametrize("text", ["", " ", "\n\t \u00a0"])
def test_text_is_more_than_white_space_unless_a_call_follows(text):
    for form in (HERMES, BARE):
        assert not accepts(form, text, ADD, text=True)
        assert not accepts(form, text, text=True)
    assert accepts(HERMES, text + call("add", a=1, b=2), ADD, text=True)


@pytest.mark.parametrize("text", HERMES_TEXTS)
def test_calls_follow_text_directly_or_after_white_space(text):
    for between in ("", " ", "\n"):
        assert accepts(HERMES, text + between + call("add", a=1, b=2), ADD, text=True)


def test_nothing_but_another_call_follows_a_call():
    one = call("add", a=1, b=2)
    assert accepts(HERMES, f"{one}\n{one}", ADD, text=True)
    for rest in (" ", "\n", "Done.", "\nDone.", one, f"\n\n{one}"):
        assert not accepts(HERMES, one + rest, ADD, text=True)
    walk = begun(matcher(HERMES, ADD, parallel=False), one)
    assert walk.complete
    assert walk.allowed().nonzero()[:, 0].tolist() == [END]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("text", [True, False], ids=["text", "no text"])
@pytest.mark.parametrize("parallel", [True, False], ids=["many", "one"])
def test_there_are_as_many_calls_as_the_form_and_the_caller_allow(form, text, parallel):
    most = MOST_CALLS if parallel and form.between is not None else 1
    for calls in (1, 2, MOST_CALLS, MOST_CALLS + 1):
        answer = (form.between or "").join([call("add", form, a=1, b=2)] * calls)
        assert accepts(form, answer, ADD, text=text, parallel=parallel) is (calls <= most)


@pytest.mark.parametrize(
    "wrong",
    [
        call("sub", a=1, b=2),
        call("add", a=1),
        call("add", a=1, b="2"),
        call("add", a=1, b=2, c=3),
        call("address", a=1, b=2),
        call("now", a=1),
        call("later", a=1),
        call("add", CallForm(arguments="parameters"), a=1, b=2),
        call("add", a=1, b=2).replace(": ", ":"),
        call("add", a=1, b=2).replace(", ", ","),
        call("add", a=1, b=2).replace("{", "{ "),
        call("add", a=1, b=2).replace("\n", " "),
        '<tool_call>\n{"name": "now"}\n</tool_call>',
        '<tool_call>\n{"arguments": {}, "name": "now"}\n</tool_call>',
        "<tool_call>\n</tool_call>",
        body("add", a=1, b=2),
        call("add", a=1, b=2).removesuffix("</tool_call>"),
    ],
)
def test_a_call_is_written_in_one_way_and_has_the_arguments_of_its_tool(wrong):
    assert accepts(HERMES, call("add", a=1, b=2), *EVERY)
    assert not accepts(HERMES, wrong, *EVERY)
    assert accepts(HERMES, f"So {call('add', a=1, b=2)}", *EVERY, text=True)
    if "<tool_call>" in wrong:
        assert not accepts(HERMES, f"So {wrong}", *EVERY, text=True)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_tools_name_may_hold_any_characters(form):
    assert accepts(form, call(ODD_NAME, form), *EVERY)
    assert not accepts(form, call(ODD_NAME + " ", form), *EVERY)


def test_definitions_of_one_name_in_two_tools_stay_apart():
    assert accepts(HERMES, call("tree", root={"size": 1, "child": {}}), *EVERY)
    assert accepts(HERMES, call("like", root="b"), *EVERY)
    assert not accepts(HERMES, call("tree", root="b"), *EVERY)
    assert not accepts(HERMES, call("like", root={"size": 1}), *EVERY)


@pytest.mark.parametrize("form", [HERMES, BARE, LINES], ids=["hermes", "bare", "lines"])
@pytest.mark.parametrize("text", [True, False], ids=["text", "no text"])
def test_json_may_be_the_answer_instead_of_calls(form, text):
    allowed = {"text": text, "answer": PERSON}
    assert accepts(form, call("add", form, a=1, b=2), ADD, ADDRESS, **allowed)
    for answer in ('{"name": "add"}', '{"name": "add", "age": 3}', '{"name": "address"}', '{"name": "ad"}'):
        assert accepts(form, answer, ADD, ADDRESS, **allowed)
    for answer in ("{}", '{"age": 3}', '{"name": "add", "b": 1}', '{"name": "a"} ', "{ so", ' {"name": "a"}', ""):
        assert not accepts(form, answer, ADD, ADDRESS, **allowed)
    assert accepts(form, "a {", ADD, ADDRESS, **allowed) is text
    assert accepts(form, '{"name": "add"}', **allowed)


def test_without_a_mark_text_does_not_begin_with_a_brace():
    for answer in ("a {", "<tool_call>", "[]"):
        assert accepts(BARE, answer, ADD, text=True)
        assert accepts(BARE, answer, text=True)
    for answer in ("{", " {}", "{}", '{"name": "sub", "parameters": {}}'):
        assert not accepts(BARE, answer, ADD, text=True)
        assert not accepts(BARE, answer, text=True)
    assert not accepts(BARE, "So " + call("add", BARE, a=1, b=2) + "\n", ADD, answer=PERSON)


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([ADD, ADDRESS, ADD], r"two tools have the name 'add'\nHint: "),
        ([ADD, tool("odd", record(a=NODE))], r"^tool 'odd': .*: \$\..*'#/\$defs/Node' is not a place.*\nHint: put"),
        ([tool("odd", {"type": "string"})], r"^tool 'odd': its arguments are of type 'string'\nHint: put them"),
        ([{"name": "odd"}], r"a tool is not in OpenAI's form: \{'name': 'odd'\}\nHint: write \{"),
        ([{"function": "odd"}], "a tool is not in OpenAI's form"),
        ([tool("odd", record(a={"type": "word"}))], r"^the tool_calls grammar cannot be compiled: .*type: word"),
    ],
)
def test_tools_that_cannot_be_kept_are_refused(tools, message):
    with pytest.raises(OptionError, match=f"(?s){message}"):
        matcher(HERMES, *tools, text=True)


def test_what_no_grammar_can_keep_of_a_tools_schema_is_left_out_and_named_once(caplog):
    odd = {"type": "string", "maxLength": 8, "format": "phone", "pattern": "^(?!x)", "not": {"const": "y"}}
    tools = [ADD, tool("call", record(number=odd, to={"oneOf": [{"type": "number"}, INTEGER]}) | {"if": {}})]
    compilers = GrammarCompiler(TOKENIZER, 258, frozenset({END}))
    with caplog.at_level(logging.DEBUG, logger="lorauter_integrations.engines.tool_grammar"):
        for _ in range(3):
            walk = compilers.matcher(Grammar.tool_calls(tools, parallel=False))
    [record_of_it] = caplog.records
    for path in ("$.if", "$.properties.number.not", "$.properties.number.format", "$.properties.to.oneOf"):
        assert f"'{path}': " in record_of_it.message
    assert record_of_it.message.startswith("tool 'call': its grammar does not keep {")
    assert begun(walk, call("call", number="xy", to=1.5)).complete
    for wrong in ({"number": 1, "to": 1}, {"number": "123456789", "to": 1}, {"number": "1", "to": "x"}, {"to": 1}):
        assert not accepts(HERMES, call("call", **wrong), *tools)


def test_an_answer_beside_tools_keeps_its_whole_schema():
    with pytest.raises(OptionError, match=r"\$\.properties\.a\.not: this keyword cannot be enforced"):
        matcher(HERMES, ADD, answer=record(a={"not": INTEGER}))


def test_the_callers_schemas_stay_as_they_are():
    before = json.dumps(EVERY)
    matcher(HERMES, *EVERY, answer=PERSON)
    assert json.dumps(EVERY) == before


@pytest.mark.real_model
@pytest.mark.timeout(900)
def test_the_real_model_calls_tools_and_writes_text_and_json(real_lorauter):
    grammars = [
        Grammar.tool_calls([ADD, ADDRESS], parallel=False),
        Grammar.tool_calls([ADD], parallel=False, answer=PERSON),
        Grammar.tool_calls([ADD, ADDRESS], text=True),
        Grammar.tool_calls([], text=True),
    ]
    options = GenerationOptions(max_tokens=100, temperature=1.0, seed=1)
    asked = [Message("user", "Add 2 and 3.")]
    requests = [GenerationRequest(asked, options=options, tools=[ADD], grammar=grammar) for grammar in grammars]
    forced, either, free, without = real_lorauter.engine.complete(requests)
    assert forced.finish_reason == either.finish_reason == "stop"
    check(read(forced.text, HERMES), [ADD, ADDRESS], HERMES)
    if either.text.startswith("{"):
        Draft202012Validator(PERSON).validate(json.loads(either.text))
    else:
        check(read(either.text, HERMES), [ADD], HERMES)
    assert free.text.strip()
    if free.finish_reason == "stop" and "<tool_call>" in free.text:
        check(read(free.text[free.text.index("<tool_call>") :], HERMES), [ADD, ADDRESS], HERMES)
    assert without.text.strip()
    assert "<tool_call>" not in without.text


def first(walk, likeliest):
    """What the first token may be, as text, when the model likes another best."""
    return {TOKENIZER.decode([token]) for token in walk.allowed(liking(likeliest)).nonzero()[:, 0].tolist()}


def liking(text):
    """Scores of a model that would begin so."""
    scores = torch.zeros(258)
    scores[token_ids(text)[0]] = 1.0
    return scores


def test_a_model_that_would_write_text_gives_the_answer_where_only_calls_and_the_answer_are_allowed():
    def begin(likeliest, **options):
        return first(matcher(HERMES, ADD, **options), likeliest)

    assert begin("<", answer=PERSON) == begin("{", answer=PERSON) == {"<", "{"}
    assert begin("T", answer=PERSON) == {"{"}
    assert begin("T") == {"<"}  # a forced call
    assert "T" in begin("T", text=True, answer=PERSON)


def test_only_the_first_token_is_judged_so():
    walk = matcher(HERMES, ADD, answer=PERSON)
    walk.allowed(liking("<"))
    walk.take(token_ids("<")[0])
    assert first(walk, "x") == {"t"}  # of <tool_call>


def test_it_holds_for_every_way_of_choosing_a_token():
    scores = torch.zeros(258)
    scores[token_ids("T")[0]] = 2.0
    scores[token_ids("<")[0]] = 1.0
    for options in (GenerationOptions(), GenerationOptions(temperature=1.0, seed=3)):
        sampler = Sampler(options, (), matcher(HERMES, ADD, answer=PERSON))
        assert sampler.choose(scores) == token_ids("{")[0]
