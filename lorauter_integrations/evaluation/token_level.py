"""Answers of methods that choose adapters for each token at each module: Arrow and SpectR. Knows no tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorauter_integrations.engines.local import LocalEngine
from lorauter_integrations.errors import OptionError
from lorauter_integrations.generation import Completion, GenerationRequest
from lorauter_integrations.mixing.token_routing import Rule, TokenRouter


class TokenLevel:
    """An engine's answers with the adapters chosen by each token, of prompts and answers alike.

    Prompts, batches and decoding are the engine's own. While it answers, nobody else may use the engine: their
    tokens would choose too.

    Args:
        engine: the base model and its pool.
        adapters: names of all that will be chosen among; read now.
        rule: how they are chosen.

    Raises:
        UnknownAdapterError: one is not in the pool.
        OptionError: one can only be used alone.
        PoolError: one cannot be read any more.
    """

    def __init__(self, engine: LocalEngine, adapters: Iterable[str], rule: Rule) -> None:
        self._engine = engine
        self._router = TokenRouter(engine.mixtures, adapters, rule)

    def complete(self, requests: Sequence[GenerationRequest], among: Iterable[str]) -> list[Completion]:
        """Write whole answers, in the order of the requests; the base model's where `among` names nothing.

        Args:
            requests: without mixtures.
            among: names of the adapters that may be chosen, some of those that were given.

        Raises:
            UnknownAdapterError: one was not given.
            OptionError: a request has a mixture.
            As `LocalEngine.complete`.
        """
        for request in requests:
            if request.mixture:
                raise OptionError(
                    f"a request has the mixture {request.mixture}, and its tokens choose their own",
                    hint="leave the mixture empty",
                )
        # Not by streams, whose states the engine would keep as the base model's.
        with self._router.among(among):
            return self._engine.complete(requests)
