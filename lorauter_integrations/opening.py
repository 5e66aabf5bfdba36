"""From settings to open engines, pools and indexes, shared within a process. Knows where things are, no framework."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from lorauter_integrations.engines.base import Engine, Limits
from lorauter_integrations.lorauter import LoRAuter
from lorauter_integrations.pool import AdapterPool, BaseShapes
from lorauter_integrations.routing import TaskIndex, TaskRouter
from lorauter_integrations.settings import Settings

if TYPE_CHECKING:
    from lorauter_integrations.engines import LocalEngine


def build(settings: Settings) -> LoRAuter:
    """Open everything that the settings name, or share what is open. Raises as `LoRAuter.from_config`."""
    with _opening:
        shared = list(_indexes.values())
        index = open_index(settings)
        with ExitStack() as opened:  # when the engine fails; an index that others use stays open
            if index not in shared:
                opened.callback(index.close)
            engine = open_engine(settings)
            opened.pop_all()
    return LoRAuter(index, engine, router=open_router(settings, index), options=settings.generation.options())


def open_engine(settings: Settings) -> Engine:
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


def open_index(settings: Settings) -> TaskIndex:
    """The task index of the settings, shared within a process. Raises `TaskIndexError`, `ModelLoadError`."""
    from lorauter_integrations.routing import SentenceTransformerEncoder

    wanted = settings.encoder
    name, place = settings.weights(wanted.name), settings.locate(settings.index.path)
    key = repr((name, wanted, settings.index.url or str(place), settings.index.collection))
    index = _indexes.get(key)
    if index is None or index.closed:
        encoder = SentenceTransformerEncoder(name, prefix=wanted.prefix, device=wanted.device)
        if settings.index.url:
            index = TaskIndex.server(settings.index.url, encoder, collection=settings.index.collection)
        else:
            index = TaskIndex.embedded(place, encoder, collection=settings.index.collection)
        _indexes[key] = index
    return index


def open_router(settings: Settings, index: TaskIndex) -> TaskRouter:
    """The router of the settings."""
    return TaskRouter(index, k=settings.routing.k, temperature=settings.routing.temperature)


_opening = threading.Lock()
_engines: WeakValueDictionary[str, LocalEngine] = WeakValueDictionary()
_indexes: WeakValueDictionary[str, TaskIndex] = WeakValueDictionary()
