"""Adapters chosen for each token at each module, from its hidden state. Knows tensors, no text.

An adapter's change of a weight has a spectrum, ``s B A = U diag(S) V^T``. A rule scores the adapters for a token by
the coordinates ``V^T x`` of the module's input; the k best share by ``softmax(score / temperature)``:

    y = W x + sum_i w_i(x) s_i B_i A_i x

Arrow (Ostapenko et al., arXiv 2405.11157) scores by ``|v_1^T x|``, with v_1 the first right singular vector. Read in
the authors' code (microsoft/mttl): the input is not normalised, temperature 1, softmax over the k best; theirs are
all adapters unless k is given, PEFT's 3.

SpectR (Fleshman & Van Durme, arXiv 2504.03454) scores by the whole spectrum, ``||S V^T x|| = ||s B A x||``. The paper
itself was not at hand. That routing is for each token and layer, on the whole spectrum, is in its reviews; that its
score is the norm of what the adapter adds, in those of the authors' SEQR (arXiv 2509.18093), which proves it. Their
LAG (arXiv 2507.05346, equation 7) prints ``||V^T x||`` instead, and takes the best adapter alone. How the best share
is known second-hand only (equally, which is ``temperature=inf``); unless told, they do as in Arrow. The scaling s is
counted in, so that adapters that do the same score the same; where all have one scaling, it only changes what a
temperature means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, one_hot

from lorauter_integrations.errors import OptionError, UnknownAdapterError, listing
from lorauter_integrations.mixing.low_rank import Factors, add_outer
from lorauter_integrations.mixing.mixture_model import MixtureModel


@dataclass(frozen=True, slots=True)
class Rule(ABC):
    """How a token chooses adapters: score ``sqrt(sum_j m_j (V^T x)_j^2)``, with m made of the singular values.

    Attributes:
        k: adapters that share a token, at least 1; all where fewer cover the module.
        temperature: of the softmax over their scores, above 0; infinity shares equally.

    Raises:
        OptionError: a number is out of range.
    """

    k: int = 3
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise OptionError(f"k must be at least 1, not {self.k}")
        if not self.temperature > 0:
            raise OptionError(
                f"temperature must be above 0, not {self.temperature}", hint="k=1 takes the best adapter alone"
            )

    @abstractmethod
    def measure(self, values: Tensor) -> Tensor:
        """The weights m of the squares.

        Args:
            values: singular values, largest first. *Shape:* ``(rank,)``.

        Returns:
            *Shape:* ``(rank,)``.
        """

    def gates(self, scores: Tensor) -> Tensor:
        """The adapters' weights for each token: at most k are above 0, and they add up to 1.

        Args:
            scores: *Shape:* ``(..., adapters)``, as what is returned.
        """
        best, places = scores.topk(min(self.k, scores.shape[-1]), dim=-1)
        return torch.zeros_like(scores).scatter(-1, places, (best / self.temperature).softmax(-1))


@dataclass(frozen=True, slots=True)
class Arrow(Rule):
    """By ``|v_1^T x|``: how far the input points where the adapter changes most."""

    def measure(self, values: Tensor) -> Tensor:
        """1 for the largest singular value; 0 for all of an adapter that changes nothing, as in PEFT."""
        first = torch.zeros_like(values)
        first[0] = values[0] > 0
        return first


@dataclass(frozen=True, slots=True)
class SpectR(Rule):
    """By ``||S V^T x||``: how much the adapter adds to the output."""

    def measure(self, values: Tensor) -> Tensor:
        """Their squares."""
        return values.square()


@dataclass(frozen=True, slots=True)
class Spectrum:
    """One adapter's change of one module, ``s B A = U diag(S) V^T``, in float32 or more.

    Attributes:
        directions: ``V^T``. *Shape:* ``(rank, inputs)``.
        values: S, largest first. *Shape:* ``(rank,)``.
        outputs: ``U diag(S)``. *Shape:* ``(outputs, rank)``.
    """

    directions: Tensor
    values: Tensor
    outputs: Tensor

    @classmethod
    def of(cls, factors: Factors) -> Spectrum:
        """By QR of both factors and the SVD of a matrix of (rank, rank); B A is not formed."""
        wide = torch.promote_types(factors.a.dtype, torch.float32)
        outputs, b = torch.linalg.qr(factors.b.to(wide))
        inputs, a = torch.linalg.qr(factors.a.to(wide).T)
        u, values, v = torch.linalg.svd(factors.scaling * b @ a.T, full_matrices=False)
        return cls(v @ inputs.T, values, outputs @ (u * values))


@dataclass(frozen=True, slots=True)
class Choice:
    """The adapters among which the tokens of one module choose, side by side.

    Attributes:
        rule: how they choose.
        directions: of all. *Shape:* ``(sum of ranks, inputs)``.
        outputs: of all. *Shape:* ``(outputs, sum of ranks)``.
        measure: squares of coordinates to squares of scores. *Shape:* ``(sum of ranks, adapters)``.
        owner: the adapter's place for each rank. *Shape:* ``(sum of ranks,)``.
    """

    rule: Rule
    directions: Tensor
    outputs: Tensor
    measure: Tensor
    owner: Tensor

    @classmethod
    def among(cls, spectra: Sequence[Spectrum], rule: Rule) -> Choice:
        """Put some adapters' spectra of one module side by side."""
        ranks = torch.tensor([len(spectrum.values) for spectrum in spectra])
        owner = torch.arange(len(spectra)).repeat_interleave(ranks).to(spectra[0].values.device)
        weights = torch.cat([rule.measure(spectrum.values) for spectrum in spectra])
        return cls(
            rule,
            torch.cat([spectrum.directions for spectrum in spectra]),
            torch.cat([spectrum.outputs for spectrum in spectra], dim=1),
            weights[:, None] * one_hot(owner, len(spectra)),
            owner,
        )

    def gates(self, x: Tensor) -> Tensor:
        """Each token's weights of the adapters.

        Args:
            x: the module's input. *Shape:* ``(rows, tokens, inputs)`` or ``(tokens, inputs)``.

        Returns:
            *Shape:* ``(rows, tokens, adapters)`` or ``(tokens, adapters)``.
        """
        return self._gates(self._coordinates(x))

    def output(self, x: Tensor, y: Tensor) -> Tensor:
        """The base's output with what each token's adapters add, in its type.

        Args:
            x: as in `gates`.
            y: the base's output. *Shape:* ``(..., outputs)``.
        """
        coordinates = self._coordinates(x)
        return add_outer(y, coordinates * self._gates(coordinates)[..., self.owner], self.outputs)

    def _coordinates(self, x: Tensor) -> Tensor:
        # A hook sees the input before accelerate moves it.
        return linear(x.to(self.directions.device, self.directions.dtype), self.directions)

    def _gates(self, coordinates: Tensor) -> Tensor:
        return self.rule.gates((coordinates.square() @ self.measure).sqrt())


class TokenRouter:
    """Lets every token choose among adapters at every module; the spectra are computed once for all of them.

    They are kept in float32 or more beside the model's own cache of adapters.

    Args:
        mixtures: the base model and its pool.
        adapters: names of all that will be chosen among.
        rule: how.

    Raises:
        UnknownAdapterError: one is not in the pool.
        OptionError: one can only be used alone.
        PoolError: one cannot be read any more.
    """

    def __init__(self, mixtures: MixtureModel, adapters: Iterable[str], rule: Rule) -> None:
        self._model = mixtures.model
        self._rule = rule
        self._spectra = {name: _spectra(mixtures, name) for name in dict.fromkeys(adapters)}

    @contextmanager
    def among(self, names: Iterable[str]) -> Iterator[None]:
        """Inside the block every forward pass of the model, in any thread, chooses among these adapters.

        A module is routed among those that cover it. No two blocks may be open on one model.

        Raises:
            UnknownAdapterError: one was not given to the router.
        """
        with ExitStack() as hooks:
            for module, choice in self._choices(names).items():
                handle = self._model.get_submodule(module).register_forward_hook(_hook(choice))
                hooks.callback(handle.remove)
            yield

    def _choices(self, names: Iterable[str]) -> dict[str, Choice]:
        covering: dict[str, list[Spectrum]] = {}
        for name in dict.fromkeys(names):
            for module, spectrum in self._of(name).items():
                covering.setdefault(module, []).append(spectrum)
        return {module: Choice.among(spectra, self._rule) for module, spectra in covering.items()}

    def _of(self, name: str) -> Mapping[str, Spectrum]:
        if name not in self._spectra:
            raise UnknownAdapterError(
                f"adapter {name!r} was not given to the token router", hint=f"it has {listing(self._spectra)}"
            )
        return self._spectra[name]


@torch.no_grad()
def _spectra(mixtures: MixtureModel, name: str) -> dict[str, Spectrum]:
    if why := mixtures.adapters[name].alone:
        raise OptionError(f"adapter {name!r} can only be used alone: {why}; tokens mix adapters", hint="leave it out")
    return {module: Spectrum.of(factors) for module, factors in mixtures.weights[name].factors.items()}


def _hook(choice: Choice) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add_chosen(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return choice.output(args[0], output)

    return add_chosen
