"""Texts to tasks to mixtures. Knows nothing of models that write."""

from lorauter_integrations.routing.abstaining import Abstaining
from lorauter_integrations.routing.adapter_choice import AdapterChoice, BestOfTask, ExpectedGain
from lorauter_integrations.routing.encoder import (
    CallableEncoder,
    Encoder,
    SentenceTransformerEncoder,
    as_encoder,
)
from lorauter_integrations.routing.known_tasks import FixedTasks, KnownTasks, Neighbour, TaskSource
from lorauter_integrations.routing.remembering_encoder import RememberingEncoder
from lorauter_integrations.routing.route import Route, TaskMatch
from lorauter_integrations.routing.router import DEFAULT, PAPER, SHARES, Router, Rules, TaskRouter, route_to_task
from lorauter_integrations.routing.task_index import TaskIndex
from lorauter_integrations.routing.task_space import Mean, Space, Whitened
from lorauter_integrations.routing.weighting import Nucleus, Softmax, Uniform, Weighting

__all__ = [
    "DEFAULT",
    "PAPER",
    "SHARES",
    "Abstaining",
    "AdapterChoice",
    "BestOfTask",
    "CallableEncoder",
    "Encoder",
    "ExpectedGain",
    "FixedTasks",
    "KnownTasks",
    "Mean",
    "Neighbour",
    "Nucleus",
    "RememberingEncoder",
    "Route",
    "Router",
    "Rules",
    "SentenceTransformerEncoder",
    "Softmax",
    "Space",
    "TaskIndex",
    "TaskMatch",
    "TaskRouter",
    "TaskSource",
    "Uniform",
    "Weighting",
    "Whitened",
    "as_encoder",
    "route_to_task",
]
