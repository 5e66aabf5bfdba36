"""What llguidance cannot follow is known before there is a tokenizer."""

import re

import pytest

from lorauter_integrations.engines.writable import grammar_fault, pattern_fault


@pytest.mark.parametrize(
    "pattern", ["", "^a$", r"\d{4}-\d\d", r"^[\w\-\.]+\/$", r"(?<name>a)\u0041", r"^\(?=x$", "b+"]
)
def test_a_pattern_that_can_be_written_has_no_fault(pattern):
    assert pattern_fault(pattern) == ""


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        (r"^(?=.*\d)x$", r"^look-around, including look-ahead and look-behind, is not supported$"),
        (r"(a)\1", "^backreferences are not supported$"),
        (r"\bword\b", "^lookarounds not supported yet; WordUnicode"),
        ("(x", "^unclosed group$"),
        (r"\cA", "^unrecognized escape sequence$"),
    ],
)
def test_the_fault_of_a_pattern_is_its_reason_in_one_line(pattern, fault):
    assert re.search(fault, pattern_fault(pattern))


def test_a_grammar_that_no_tokenizer_could_write_has_a_fault():
    assert grammar_fault("start: /a/ | %json {}") == ""
    assert "unknown name" in grammar_fault("start: other")
    assert "Invalid type: word" in grammar_fault('start: %json {"type": "word"}')
