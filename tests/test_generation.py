import pytest

from lorauter_integrations import GenerationOptions, GenerationRequest, Message, Mixture, Usage
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
    with pytest.raises(OptionError, match=r"(?s)unknown generation option 'heat'.*Hint: .*'max_tokens', 'seed'"):
        GenerationOptions().override({"heat": 1})


def test_usage_adds_up():
    assert Usage(7, 5).total_tokens == 12


def test_request_goes_to_the_base_model_unless_told():
    request = GenerationRequest([Message("user", "hi")])
    assert request.mixture == Mixture()
    assert request.tools == ()
