"""Tasks to adapters by successive halving. Knows nothing of routing."""

from lorauter_integrations.matching.halving import halving_schedule, successive_halving, uniform_schedule
from lorauter_integrations.matching.ledger import Ledger
from lorauter_integrations.matching.matcher import Matcher, Progress
from lorauter_integrations.matching.scoring import LikelihoodScorer, MetricScorer, Scorer

__all__ = [
    "Ledger",
    "LikelihoodScorer",
    "Matcher",
    "MetricScorer",
    "Progress",
    "Scorer",
    "halving_schedule",
    "successive_halving",
    "uniform_schedule",
]
