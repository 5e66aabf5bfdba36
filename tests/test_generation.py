import pytest

from lorauter_integrations import GenerationOptions, GenerationRequest, Grammar, Message, Mixture, Usage
from lorauter_integrations.errors import OptionError


def test_defaults_are_greedy():
    options = GenerationOptions()
    assert (options.temperature, options.top_p, options.top_k, options.seed) == (0.0, 1.0, 0, None)


OUT_OF_RANGE = [
    ("max_tokens", 0, "max_tokens must be a whole number of at least 1, not 0"),
    ("max_tokens", 1.5, "max_tokens must be a whole number of at least 1, not 1.5"),
    ("max_tokens", True, "max_tokens must be a whole number of at least 1, not True"),
    ("top_k", -1, "top_k must be a whole number of at least 0, not -1"),
    ("seed", -3, "seed must be a whole number of at least 0, not -3"),
    ("temperature", -0.1, "temperature must be a number from 0 to inf, not -0.1"),
    ("temperature", float("nan"), "temperature must be a number from 0 to inf, not nan"),
    ("temperature", float("inf"), "temperature must be finite, not inf"),
    ("temperature", "hot", "temperature must be a number from 0 to inf, not 'hot'"),
    ("top_p", 1.1, "top_p must be a number from 0 to 1, not 1.1"),
    ("top_p", 0.0, r"(?s)top_p must be above 0.*Hint: use temperature=0"),
    ("min_p", -0.1, "min_p must be a number from 0 to 1, not -0.1"),
    ("min_p", 1.01, "min_p must be a number from 0 to 1, not 1.01"),
    ("repetition_penalty", 0, r"(?s)repetition_penalty must be above 0.*Hint: 1 changes nothing"),
    ("repetition_penalty", -1, "repetition_penalty must be a number from 0 to inf, not -1"),
    ("logprobs", 21, "logprobs must be at most 20, not 21"),
    ("logprobs", -1, "logprobs must be a whole number of at least 0, not -1"),
    ("logprobs", True, "logprobs must be a whole number of at least 0, not True"),
    ("seed", 2**63, "seed must be at most 9223372036854775807, not 9223372036854775808"),
    ("timeout", 0, r"(?s)timeout must be above 0.*Hint: leave it out"),
    ("timeout", "soon", "timeout must be a number from 0 to inf, not 'soon'"),
    ("stop", ["a", ""], r"stop must hold non-empty strings, not \('a', ''\)"),
    ("stop", [5], r"stop must hold non-empty strings, not \(5,\)"),
]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    OUT_OF_RANGE,
    ids=[f"{option}={value!r}" for option, value, _ in OUT_OF_RANGE],
)
def test_option_out_of_range_is_refused(option, value, message):
    with pytest.raises(OptionError, match=message):
        GenerationOptions(**{option: value})


@pytest.mark.parametrize(("stop", "kept"), [("###", ("###",)), (["a", "b"], ("a", "b"))], ids=["text", "list"])
def test_stop_becomes_a_tuple_of_texts(stop, kept):
    assert GenerationOptions(stop=stop).stop == kept


def test_override_replaces_what_is_given_and_none_keeps():
    options = GenerationOptions(max_tokens=5, temperature=0.5)
    assert options.override({"max_tokens": 9, "temperature": None}) == GenerationOptions(9, 0.5)


def test_override_checks_ranges():
    with pytest.raises(OptionError, match=r"max_tokens .* at least 1, not 0"):
        GenerationOptions().override({"max_tokens": 0})


def test_override_names_the_unknown_option_and_the_known_ones():
    with pytest.raises(OptionError, match=r"(?s)unknown generation option 'heat'.*Hint: .*'max_tokens', 'min_p'"):
        GenerationOptions().override({"heat": 1})


@pytest.mark.parametrize(
    ("option", "instead"),
    [("num_beams", "own mixture"), ("n", "send the conversation n times"), ("logit_bias", "use a grammar")],
)
def test_options_of_other_libraries_are_refused_by_name_with_what_to_do(option, instead):
    with pytest.raises(OptionError, match=rf"(?s)the option {option} is not supported.*Hint: .*{instead}"):
        GenerationOptions().override({option: 4})


def test_a_grammar_and_stop_strings_exclude_each_other():
    with pytest.raises(OptionError, match=r"a grammar and the stop strings \['\\n'\] exclude each other"):
        GenerationRequest([], options=GenerationOptions(stop="\n"), grammar=Grammar.lark("start: /a+/"))


def test_a_schema_that_is_not_json_is_refused():
    with pytest.raises(OptionError, match="the JSON schema is not JSON"):
        Grammar.json_schema({"type": {1, 2}})


def test_usage_adds_up():
    assert Usage(7, 5).total_tokens == 12


def test_request_goes_to_the_base_model_unless_told():
    request = GenerationRequest([Message("user", "hi")])
    assert request.mixture == Mixture()
    assert request.tools == ()
