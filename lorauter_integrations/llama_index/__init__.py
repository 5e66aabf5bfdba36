"""LlamaIndex: `LoRAuterLLM`. Needs the extra `llamaindex`."""

from lorauter_integrations.extras import needs_extra

with needs_extra("llamaindex", "llama_index"):
    from lorauter_integrations.llama_index.embeddings import RouterEmbedding
    from lorauter_integrations.llama_index.events import LoRAuterRouteEvent
    from lorauter_integrations.llama_index.llm import LoRAuterLLM
    from lorauter_integrations.llama_index.selector import LoRAuterSelector

__all__ = ["LoRAuterLLM", "LoRAuterRouteEvent", "LoRAuterSelector", "RouterEmbedding"]
