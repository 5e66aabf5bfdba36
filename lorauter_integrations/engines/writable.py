"""What llguidance can follow, asked of llguidance itself; needs no tokenizer."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1024)
def pattern_fault(pattern: str) -> str:
    """Why no text can be written by a regular expression; "" when it can."""
    from llguidance import LLMatcher

    source = LLMatcher.grammar_from_json_schema({"type": "string", "pattern": pattern})
    # Its message shows the expression, marks the place and ends with the reason.
    return _fault(source).rpartition("\n")[2].removeprefix("error: ")


@lru_cache(maxsize=256)
def grammar_fault(text: str) -> str:
    """Why a Lark grammar cannot be compiled, for any tokenizer; "" when it can."""
    from llguidance import LLMatcher

    return _fault(LLMatcher.grammar_from_lark(text))


def _fault(source: str) -> str:
    from llguidance import LLMatcher

    return str(LLMatcher.validate_grammar(source)).strip()
