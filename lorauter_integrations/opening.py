"""From settings to open engines, pools and indexes, shared within a process. Knows where things are, no framework."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from lorauter_integrations.engines.base import Limits
from lorauter_integrations.errors import ConfigError
from lorauter_integrations.locations import imported_function
from lorauter_integrations.lorauter import LoRAuter
from lorauter_integrations.pool import AdapterPool, BaseShapes
from lorauter_integrations.routing import (
    DEFAULT,
    PAPER,
    SHARES,
    Abstaining,
    AdapterChoice,
    BestOfTask,
    Encoder,
    ExpectedGain,
    Mean,
    Nucleus,
    RememberingEncoder,
    Rules,
    SentenceTransformerEncoder,
    Softmax,
    Space,
    TaskIndex,
    TaskRouter,
    Uniform,
    Weighting,
    Whitened,
    as_encoder,
)
from lorauter_integrations.settings import RoutingSettings, Settings

if TYPE_CHECKING:
    from lorauter_integrations.engines import LocalEngine


def build(settings: Settings, encoder: Any = None) -> LoRAuter:
    """Open everything that the settings name, or share what is open. Raises as `LoRAuter.from_config`.

    Args:
        settings: what to open.
        encoder: instead of the settings', see `as_encoder`; then no other process can open the same.
    """
    rules = routing_rules(settings.routing)  # what is wrong with them is said before a model is loaded
    with _opening:
        shared = list(_indexes.values())
        index = open_index(settings, encoder)
        with ExitStack() as opened:  # when the engine fails; an index that others use stays open
            if index not in shared:
                opened.callback(index.close)
            engine = open_engine(settings)
            opened.pop_all()
    lorauter = LoRAuter(
        index,
        engine,
        router=TaskRouter(index, rules),
        options=settings.generation.options(),
        route_on=settings.routing.route_on,
        sticky=settings.routing.sticky,
        settings=settings,
    )
    lorauter.travels = encoder is None
    return lorauter


def keep(lorauter: LoRAuter) -> None:
    """Remember a LoRAuter that is being pickled, for `reopen` in this process."""
    _pickled[lorauter.key] = lorauter


def reopen(key: str, settings: Settings | None) -> LoRAuter:
    """The LoRAuter that was pickled: the very same object in its own process, else opened from its settings.

    Raises:
        ConfigError: another process made it of objects, which do not travel.
        LoRAuterError: as `LoRAuter.from_config`.
    """
    if (found := _pickled.get(key)) is not None:
        return found
    if settings is None:
        raise ConfigError(
            "this LoRAuter was made of objects, not of settings alone, and they stay in the process that made it",
            hint="make it with from_config; an encoder can be named in the settings by [encoder] factory",
        )
    opened = _pickled[key] = build(settings)
    return opened


def open_engine(settings: Settings) -> LocalEngine:
    """The base model and pool of the settings, shared within a process. Raises `ModelLoadError`, `PoolError`."""
    from lorauter_integrations.engines import LocalEngine

    name, pool = settings.weights(settings.model.name), settings.locate(settings.pool.path)
    key = repr((name, settings.model, str(pool), settings.pool, settings.engine))
    engine = _engines.get(key)
    if engine is None or engine.closed:
        engine = LocalEngine.load(
            name,
            partial(open_pool, settings),
            dtype=settings.model.dtype,
            device=settings.model.device,
            device_map=settings.model.device_map,
            quantization=settings.model.quantization,
            limits=_limits(settings),
        )
        engine.pin(settings.pool.pin)
        _engines[key] = engine
    return engine


def open_pool(settings: Settings, shapes: BaseShapes, **options: Any) -> AdapterPool:
    """The pool of the settings, checked; what earlier checks have read is not read again.

    Args:
        settings: name the folder.
        shapes: of the base model's modules.
        options: of `AdapterPool.from_folder`, which win.

    Raises:
        PoolError: the folder cannot be used.
    """
    wanted = settings.pool
    given = {
        "cache": settings.locate(wanted.cache) if wanted.cache else None,
        "allow_bin": wanted.allow_bin,
        "base": settings.model.name,
        "strict_base": wanted.strict_base,
    }
    return AdapterPool.from_folder(settings.locate(wanted.path), shapes, **(given | options))


def _limits(settings: Settings) -> Limits:
    wanted = settings.engine
    return Limits(
        rows=wanted.rows,
        queue=wanted.queue,
        chunk=wanted.chunk,
        adapter_bytes=settings.pool.budget_mib << 20,
        prefix_bytes=wanted.prefix_mib << 20,
    )


def open_index(settings: Settings, encoder: Any = None) -> TaskIndex:
    """The task index of the settings, shared within a process by those that name or give the same encoder.

    Args:
        settings: where it is.
        encoder: instead of the settings', see `as_encoder`.

    Raises:
        TaskIndexError: it cannot be opened.
        ModelLoadError: the encoder cannot be loaded.
        ConfigError: `encoder`, or what the settings' factory makes, is none.
    """
    wanted = settings.index
    place = wanted.url or str(settings.locate(wanted.path))
    key = repr((_encoder_key(settings) if encoder is None else id(encoder), place, wanted.collection))
    index = _indexes.get(key)
    if index is None or index.closed:
        encoder = open_encoder(settings) if encoder is None else as_encoder(encoder)
        if settings.encoder.cache:
            encoder = RememberingEncoder(encoder, settings.encoder.cache)
        if wanted.url:
            index = TaskIndex.server(place, encoder, collection=wanted.collection)
        else:
            index = TaskIndex.embedded(place, encoder, collection=wanted.collection)
        _indexes[key] = index
    return index


def open_encoder(settings: Settings) -> Encoder:
    """The encoder of the settings.

    Raises:
        ConfigError: the factory cannot be imported, or makes no encoder.
    """
    wanted = settings.encoder
    if wanted.factory:
        hint = 'write [encoder] factory = "package.module:function", of a package that Python finds'
        return as_encoder(imported_function(wanted.factory, "the encoder's factory", ConfigError, hint=hint)())
    return SentenceTransformerEncoder(
        settings.weights(wanted.name), prefix=wanted.prefix, device=wanted.device, long_texts=wanted.long_texts
    )


def _encoder_key(settings: Settings) -> object:
    wanted = settings.encoder
    return wanted if wanted.factory else (settings.weights(wanted.name), wanted)


def open_router(settings: Settings, index: TaskIndex) -> TaskRouter:
    """The router of the settings."""
    return TaskRouter(index, routing_rules(settings.routing))


def routing_rules(wanted: RoutingSettings) -> Rules:
    """The preset's rules, with what the settings say beside it."""
    preset = {"default": DEFAULT, "paper": PAPER}[wanted.preset]
    spaces: Mapping[str, Space] = {"mean": Mean(), "whitened": Whitened(wanted.shrinkage)}
    abstaining = preset.abstaining
    if wanted.abstain is not None:
        abstaining = Abstaining(wanted.abstain) if wanted.abstain else None
    return Rules(
        spaces[wanted.space] if wanted.space else preset.space,
        _weighting(wanted, SHARES[wanted.preset]),
        _choice(wanted, preset.choice),
        abstaining,
    )


def _weighting(wanted: RoutingSettings, preset: Softmax) -> Weighting:
    ours = None if wanted.weights == "nucleus" else preset.temperature  # a nucleus goes by probabilities
    temperature = ours if wanted.temperature is None else wanted.temperature
    softmax = replace(preset, k=wanted.k or preset.k, temperature=None if temperature == "fitted" else temperature)
    ways: Mapping[str, Weighting] = {
        "softmax": softmax,
        "uniform": Uniform(softmax.k),
        "nucleus": Nucleus(wanted.mass, softmax.k, softmax.temperature),
    }
    return ways[wanted.weights or "softmax"]


def _choice(wanted: RoutingSettings, preset: AdapterChoice) -> AdapterChoice:
    ways: Mapping[str, AdapterChoice] = {"expected": ExpectedGain(), "best": BestOfTask()}
    choice = ways[wanted.adapters] if wanted.adapters else preset
    if wanted.most_adapters is None:
        return choice
    if not isinstance(choice, ExpectedGain):
        raise ConfigError(
            f"[routing] most_adapters is {wanted.most_adapters}, but each task stands for its best adapter",
            hint='set adapters = "expected", or leave most_adapters out',
        )
    return replace(choice, most=wanted.most_adapters)


_opening = threading.Lock()
_engines: WeakValueDictionary[str, LocalEngine] = WeakValueDictionary()
_indexes: WeakValueDictionary[str, TaskIndex] = WeakValueDictionary()
_pickled: WeakValueDictionary[str, LoRAuter] = WeakValueDictionary()
