"""Texts to tasks to mixtures. Knows nothing of models that write."""

from lorauter_integrations.routing.encoder import (
    CallableEncoder,
    Encoder,
    SentenceTransformerEncoder,
    as_encoder,
)
from lorauter_integrations.routing.route import Route, TaskMatch
from lorauter_integrations.routing.router import Router, TaskRouter, route_to_task
from lorauter_integrations.routing.task_index import Neighbour, TaskIndex

__all__ = [
    "CallableEncoder",
    "Encoder",
    "Neighbour",
    "Route",
    "Router",
    "SentenceTransformerEncoder",
    "TaskIndex",
    "TaskMatch",
    "TaskRouter",
    "as_encoder",
    "route_to_task",
]
