import pytest
from llama_index.core.agent.react.formatter import ReActChatFormatter
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.prompts.chat_prompts import CHAT_REFINE_PROMPT, CHAT_TEXT_QA_PROMPT, CHAT_TREE_SUMMARIZE_PROMPT
from llama_index.core.tools import FunctionTool

from lorauter_integrations.errors import RoutingError
from lorauter_integrations.generation import Message
from lorauter_integrations.llama_index import LoRAuterLLM
from lorauter_integrations.llama_index.messages import from_llama_index
from lorauter_integrations.llama_index.route_text import BEGINNING, END, both_ends, ends
from lorauter_integrations.route_text import route_text

LONG = "The ferry leaves at nine from the north pier. " * 60
ASKED = "When does the ferry leave?"


def sent(template, **variables):
    return from_llama_index(template.format_messages(**variables))


@pytest.mark.parametrize("length", [0, 1, BEGINNING + END - 1, BEGINNING + END])
def test_what_fits_stays_as_it_is(length):
    assert ends("x" * length) == "x" * length


def test_a_longer_text_loses_its_middle_alone():
    text = "a" * BEGINNING + "b" + "c" * END
    assert ends(text) == "a" * BEGINNING + "\n" + "c" * END


def test_a_short_conversation_is_routed_as_without():
    talk = [Message("system", "Answer briefly."), Message("user", "Hello."), Message("user", ASKED)]
    assert both_ends(talk) == route_text(talk) == f"Answer briefly.\n\n{ASKED}"


@pytest.mark.parametrize(
    ("template", "variables", "said"),
    [
        (CHAT_TEXT_QA_PROMPT, {"context_str": LONG}, ("Q&A system", "below", "not prior knowledge", ASKED)),
        (CHAT_TREE_SUMMARIZE_PROMPT, {"context_str": LONG}, ("from multiple sources is below", "prior", ASKED)),
        (CHAT_REFINE_PROMPT, {"context_msg": LONG, "existing_answer": "At ten."}, ("**Rewrite**", "At ten.", ASKED)),
        (PromptTemplate("Help.\n{context_str}\nNow: {query_str}"), {"context_str": LONG}, ("Help.", f"Now: {ASKED}")),
    ],
    ids=["text_qa", "tree_summarize", "refine", "one's own"],
)
def test_what_a_template_says_to_do_and_the_query_are_in_the_text(template, variables, said):
    messages = sent(template, query_str=ASKED, **variables)
    text = both_ends(messages)
    assert [part for part in said if part not in text] == []
    assert len(text) == BEGINNING + 1 + END < len(route_text(messages))


def test_the_request_to_a_react_agent_is_in_the_text_with_its_tools():
    def order_status(order_id: str) -> str:
        """Status of an order."""
        return order_id

    tool = FunctionTool.from_defaults(order_status)
    text = both_ends(from_llama_index(ReActChatFormatter().format([tool], [ChatMessage(ASKED, role="user")])))
    assert "Tool Name: order_status" in text
    assert text.endswith(ASKED)


def test_nothing_to_route_on_is_an_error():
    with pytest.raises(RoutingError, match=r"the conversation \(turns: assistant\) has no system or user text"):
        both_ends([Message("assistant", "Hello.")])


def test_it_is_a_route_on_of_the_llm(pico_lorauter):
    prompt = f"{'add the numbers 7 and 7, ' * 28}{'blue ' * 4}{'name a colour like shade 2, ' * 9}".strip()
    raw = LoRAuterLLM(pico_lorauter, route_on=both_ends, max_tokens=1).complete(prompt).raw
    similar, of_all = (
        [match.similarity for match in pico_lorauter.route(text).matches] for text in (ends(prompt), prompt)
    )
    assert (
        [match["similarity"] for match in raw["lorauter"]["tasks"]] == pytest.approx(similar) != pytest.approx(of_all)
    )
