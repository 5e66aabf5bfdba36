"""Grammars compiled for one tokenizer, and where each row of a batch is in its own. Home of llguidance's matchers."""

from __future__ import annotations

import json
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lorauter_integrations.engines.json_schema import prepared
from lorauter_integrations.engines.tool_grammar import tool_grammar
from lorauter_integrations.errors import EngineError, OptionError
from lorauter_integrations.generation import Grammar
from lorauter_integrations.tool_calls import HERMES, CallForm

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

KEPT = 64  # compiled grammars; agents send the same tools again and again
SHOWN = 4  # lines of llguidance's messages, which go on with its state


class GrammarCompiler:
    """Makes matchers for one model; from any thread.

    Args:
        tokenizer: a fast one of transformers; not changed, and not read before the first grammar.
        vocabulary: width of the model's logits.
        end_tokens: ids that end an answer.
        form: how the model writes tool calls.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, end_tokens: frozenset[int], form: CallForm = HERMES) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._end_tokens = end_tokens
        self._form = form
        self._lock = Lock()
        self._tokens: LLTokenizer | None = None
        self._compiled = lru_cache(maxsize=KEPT)(self._compile)

    def matcher(self, grammar: Grammar) -> TokenMatcher:
        """A matcher at the beginning of a grammar, for one row.

        Raises:
            OptionError: the schema or grammar cannot be compiled.
            EngineError: the model's tokenizer cannot be used with grammars.
        """
        other = grammar.otherwise
        otherwise = self.matcher(other).allowed() if other else None
        return TokenMatcher(self._compiled(grammar).deep_copy(), self._vocabulary, otherwise)

    def _compile(self, grammar: Grammar) -> LLMatcher:
        from llguidance import LLMatcher

        hint = "simplify the schema; values can be checked further after parsing"
        if grammar.kind == "lark":
            source = LLMatcher.grammar_from_lark(grammar.source)
            hint = "see https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md for what it may hold"
        elif grammar.kind == "tool_calls":
            source = LLMatcher.grammar_from_lark(tool_grammar(json.loads(grammar.source), self._form))
        else:
            source = LLMatcher.grammar_from_json_schema(prepared(json.loads(grammar.source)))
        matcher = LLMatcher(self._read(), source, log_level=0)
        matcher.compute_bitmask()  # some grammars without any text are noticed only here
        if matcher.is_error():
            raise OptionError(f"the {grammar.kind} grammar cannot be compiled: {_message(matcher)}", hint=hint)
        return matcher

    def _read(self) -> LLTokenizer:
        """The tokenizer as llguidance reads it, once; takes up to a second."""
        from llguidance.hf import from_tokenizer

        with self._lock:
            if self._tokens is None:
                if not self._end_tokens:  # llguidance would take token 0 for one
                    raise EngineError(
                        "the model has no end token, so an answer bound to a grammar could not end",
                        hint="set eos_token in the model's tokenizer_config.json",
                    )
                ends = sorted(self._end_tokens)
                try:
                    self._tokens = from_tokenizer(self._tokenizer, n_vocab=self._vocabulary, eos_token=ends)
                except ValueError as error:
                    raise EngineError(
                        f"the tokenizer {type(self._tokenizer).__name__} cannot be used with grammars: {error}",
                        hint="use a model that has a tokenizer.json, and as many logits as tokens",
                    ) from error
            return self._tokens


class TokenMatcher:
    """How far one row is in its grammar.

    Args:
        matcher: llguidance's own, for this row alone.
        vocabulary: width of the model's logits.
        otherwise: which tokens the text may begin with where the model would begin it otherwise than it may; all
            when None.
    """

    def __init__(self, matcher: LLMatcher, vocabulary: int, otherwise: Tensor | None = None) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._otherwise = otherwise

    def allowed(self, scores: Tensor | None = None) -> Tensor:
        """Which tokens may come next; end tokens where the text may end. *Shape:* ``(vocabulary,)``, bool, CPU.

        Args:
            scores: how the model likes each token if it were free.

        Raises:
            EngineError: the grammar is too complex at this place, or a token before did not fit.
        """
        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise EngineError(
                f"the grammar cannot be followed: {_message(self._matcher)}", hint="use a simpler grammar"
            )
        bits = np.unpackbits(mask, count=self._vocabulary, bitorder="little")
        tokens = torch.from_numpy(bits).view(torch.bool)
        otherwise, self._otherwise = self._otherwise, None
        if otherwise is None or scores is None or tokens[scores.argmax()]:
            return tokens
        return tokens & otherwise

    def take(self, token: int) -> None:
        """Go on by one token, an end token included.

        Raises:
            EngineError: the token does not fit here.
        """
        if not self._matcher.consume_token(token):
            raise EngineError(f"token {token} does not fit the grammar: {_message(self._matcher)}")

    @property
    def complete(self) -> bool:
        """Whether the text is a whole answer that nothing but an end token can follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()


def _message(matcher: LLMatcher) -> str:
    """The first lines of llguidance's message, without the state that it appends."""
    return "\n".join(matcher.get_error().partition("<state>")[0].strip().splitlines()[:SHOWN])
