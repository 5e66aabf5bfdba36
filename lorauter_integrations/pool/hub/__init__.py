"""Adapters from the Hugging Face Hub, into a folder of the pool. The home of huggingface_hub."""

from lorauter_integrations.pool.hub.answers import Backoff
from lorauter_integrations.pool.hub.candidate import Criteria, Outcome
from lorauter_integrations.pool.hub.client import Hub
from lorauter_integrations.pool.hub.intake import Intake
from lorauter_integrations.pool.hub.listing import Found
from lorauter_integrations.pool.hub.location import HubLocation

__all__ = ["Backoff", "Criteria", "Found", "Hub", "HubLocation", "Intake", "Outcome"]
