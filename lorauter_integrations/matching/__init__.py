"""Tasks to adapters by screening and successive halving. Knows nothing of routing."""

from lorauter_integrations.matching.game import METRIC, TIES, copies_apart, pool_hash
from lorauter_integrations.matching.halving import (
    SURE,
    Rules,
    halving_schedule,
    screened_schedule,
    successive_halving,
    uniform_schedule,
)
from lorauter_integrations.matching.ledger import Ledger
from lorauter_integrations.matching.local_processes import LocalProcesses
from lorauter_integrations.matching.matcher import Matcher, Progress
from lorauter_integrations.matching.scoring import LikelihoodScorer, MetricScorer, Scorer
from lorauter_integrations.matching.screening import Screen
from lorauter_integrations.matching.workers import InProcess, Workers

__all__ = [
    "METRIC",
    "SURE",
    "TIES",
    "InProcess",
    "Ledger",
    "LikelihoodScorer",
    "LocalProcesses",
    "Matcher",
    "MetricScorer",
    "Progress",
    "Rules",
    "Scorer",
    "Screen",
    "Workers",
    "copies_apart",
    "halving_schedule",
    "pool_hash",
    "screened_schedule",
    "successive_halving",
    "uniform_schedule",
]
