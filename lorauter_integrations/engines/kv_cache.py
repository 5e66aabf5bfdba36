"""Key-value caches whose rows come, go, and carry over to later requests. Knows transformers' caches only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens of spare room, at least


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types here
    """A layer that writes new tokens into spare room, where `DynamicLayer` copies all tokens for each new one."""

    keys: Tensor
    values: Tensor
    is_initialized: bool

    def __init__(self) -> None:
        super().__init__()
        self._key_room: Tensor | None = None
        self._value_room: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append states. *Shape:* ``(rows, heads, new tokens, size)``; returns all of them."""
        if not self.is_initialized:
            self.hold(key_states[:, :, :0], value_states[:, :, :0])
        before = self.keys.shape[2]
        after = before + key_states.shape[2]
        if self._key_room is None or self._value_room is None or self._key_room.shape[2] < after:
            self._key_room, self._value_room = _roomier(self.keys, after), _roomier(self.values, after)
        self._key_room[:, :, before:after] = key_states
        self._value_room[:, :, before:after] = value_states
        self.keys, self.values = self._key_room[:, :, :after], self._value_room[:, :, :after]
        return self.keys, self.values

    def hold(self, keys: Tensor, values: Tensor) -> None:
        """Replace what is held."""
        self.keys, self.values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._key_room = self._value_room = None


@dataclass(frozen=True, slots=True)
class RowStates:
    """The states of one row's tokens, layer by layer.

    Attributes:
        layers: keys and values. *Shape:* ``(heads, tokens, size)`` each.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)

    def first(self, tokens: int) -> RowStates:
        """The states of the first tokens; shares memory."""
        return RowStates(tuple((keys[:, :tokens], values[:, :tokens]) for keys, values in self.layers))


class RowCache:
    """The key-value cache of a batch whose rows change.

    Args:
        config: the model's; says which layers have a sliding window.

    Attributes:
        states: what the model is given.
        plain: every layer keeps every token, so rows of different lengths can stand in one cache.
    """

    def __init__(self, config: Any) -> None:
        self.states = DynamicCache(config=config)
        self.plain = all(type(layer) is DynamicLayer for layer in self.states.layers)
        if self.plain:
            self.states.layers = [RoomyLayer() for _ in self.states.layers]

    @property
    def bytes_a_token(self) -> int:
        """Of one row's states, in all layers."""
        layers = self.states.layers
        return sum(2 * one.keys.shape[1] * one.keys.shape[3] * one.keys.element_size() for one in layers)

    def start_with(self, rows: Sequence[RowStates | None], length: int) -> None:
        """Begin with the states of earlier tokens, padded on the left to a common length; for a plain cache."""
        some = next(row for row in rows if row is not None)
        for place, layer in enumerate(self.states.layers):
            pairs = [some.first(0).layers[place] if row is None else row.layers[place] for row in rows]
            layer.hold(
                *(torch.stack([_on_the_left(part, length) for part in side]) for side in zip(*pairs, strict=True))
            )

    def row(self, place: int, columns: Tensor) -> RowStates:
        """A copy of one row's states at these columns of a plain cache."""
        return RowStates(
            tuple(
                (layer.keys[place][:, here := columns.to(layer.keys.device)], layer.values[place][:, here])
                for layer in self.states.layers
            )
        )

    def keep(self, rows: Tensor) -> None:
        """Keep the rows in these places."""
        if not self.plain:
            self.states.batch_select_indices(rows)
            return
        for layer in self.states.layers:
            if layer.is_initialized:
                here = rows.to(layer.keys.device)
                layer.hold(layer.keys[here], layer.values[here])

    def absorb(self, other: RowCache, length: int) -> None:
        """Take in the rows of another plain cache; the shorter one is padded on the left to this length."""
        for ours, theirs in zip(self.states.layers, other.states.layers, strict=True):
            ours.hold(
                torch.cat([_on_the_left(ours.keys, length), _on_the_left(theirs.keys, length)]),
                torch.cat([_on_the_left(ours.values, length), _on_the_left(theirs.values, length)]),
            )

    def cut(self, tokens: int) -> None:
        """Forget the first tokens of every row of a plain cache."""
        for layer in self.states.layers:
            layer.hold(layer.keys[:, :, tokens:], layer.values[:, :, tokens:])


def _roomier(states: Tensor, tokens: int) -> Tensor:
    """A copy with room for `tokens` and a quarter more."""
    rows, heads, held, size = states.shape
    room = states.new_empty(rows, heads, tokens + max(ROOM, tokens // 4), size)
    room[:, :, :held] = states
    return room


def _on_the_left(states: Tensor, length: int) -> Tensor:
    """Zeros before the states. *Shape:* ``(..., length, size)``."""
    return pad(states, (0, 0, length - states.shape[-2], 0))
