"""LlamaIndex: `LoRAuterLLM`. Needs the extra `llamaindex`."""

from lorauter_integrations.extras import needs_extra

with needs_extra("llamaindex", "llama_index"):
    from lorauter_integrations.llama_index.embeddings import RouterEmbedding
    from lorauter_integrations.llama_index.events import LoRAuterRouteEvent
    from lorauter_integrations.llama_index.llm import LoRAuterLLM

__all__ = ["LoRAuterLLM", "LoRAuterRouteEvent", "RouterEmbedding"]
