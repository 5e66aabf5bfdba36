"""LangChain: `ChatLoRAuter`. Needs the extra `langchain`."""

from lorauter_integrations.extras import needs_extra

with needs_extra("langchain", "langchain_core"):
    from lorauter_integrations.langchain.chat_model import ChatLoRAuter
    from lorauter_integrations.langchain.embeddings import RouterEmbeddings
    from lorauter_integrations.langchain.routes import RouteRunnable

__all__ = ["ChatLoRAuter", "RouteRunnable", "RouterEmbeddings"]
