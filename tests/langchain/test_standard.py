"""LangChain's own standard tests, on SmolLM2-135M-Instruct with the demo's adapters, routed."""

import pytest
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from lorauter_integrations.langchain import ChatLoRAuter


@pytest.fixture
def benchmark():
    """What pytest-benchmark would measure is run; no time is asserted."""
    return lambda run: run()


@pytest.fixture
def vcr():
    """Nothing goes over a network that could be recorded; the one test that asks for it is skipped."""


class Flags:
    """What the model can do, for both suites."""

    @pytest.fixture(autouse=True)
    def _lorauter(self, request):
        self.lorauter = request.getfixturevalue(self.fixture)

    @property
    def chat_model_class(self):
        return ChatLoRAuter

    @property
    def chat_model_params(self):
        return {"lorauter": self.lorauter}

    @property
    def structured_output_kwargs(self):
        return {"method": "json_schema"}

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_anthropic_inputs(self):
        return True

    @property
    def supported_usage_metadata_details(self):
        return {"invoke": [], "stream": []}


class TestUnit(Flags, ChatModelUnitTests):
    fixture = "pico_lorauter"

    @property
    def model_override_value(self):
        return "wide"


@pytest.mark.real_model
@pytest.mark.timeout(900)
class TestIntegration(Flags, ChatModelIntegrationTests):
    fixture = "real_lorauter"

    @property
    def chat_model_params(self):
        return {**super().chat_model_params, "rate_limiter": InMemoryRateLimiter(requests_per_second=1000)}

    @property
    def model_override_value(self):
        return "function_calling"
