"""Objects of a class from texts: table bookings, all texts asked at once.

The answer is decoded under the class's schema, so that each is a `Booking`; what stands in it is the model's skill.
The base model alone fills in the same class from the same prompt, to see what routing brings.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from demo_llm import console, demo_llm, nearest_task
from llama_index.core import PromptTemplate
from pydantic import AfterValidator, BaseModel, Field
from routes import asking, recorded_routes

from lorauter_integrations.llama_index import LoRAuterLLM

FILE = Path(__file__).parent / "bookings.jsonl"
SHOWN = 5
# In the words of the task that it should reach. The model does not see the schema, so the fields are named here.
PROMPT = PromptTemplate(
    "Functions:\n"
    "book_table(people: integer, day: string, time: string, guest: string) - Book a table for a guest.\n\n"
    "Request: {text}\nArguments (JSON):"
)


def without_minutes(time: str) -> str:
    """ "8:00 pm" as "8 pm"."""
    return time.replace(":00", "")


class Booking(BaseModel):
    """A table in a restaurant. The pattern and the bound also hold while the model writes."""

    people: int
    day: Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    time: Annotated[str, Field(pattern=r"^\d{1,2}(:\d\d)? (am|pm)$"), AfterValidator(without_minutes)]
    guest: str = Field(max_length=40)


@dataclass(frozen=True)
class Found:
    """What was found in a text, and the route."""

    booking: Booking
    route: dict[str, Any]


def find_all(llm: LoRAuterLLM, texts: Sequence[str]) -> list[Found]:
    """Ask for all texts at once; they share the model's forward passes."""

    async def ask() -> list[Found]:
        return await asyncio.gather(*(find(llm, text, routes) for text in texts))

    with recorded_routes() as routes:
        return asyncio.run(ask())


async def find(llm: LoRAuterLLM, text: str, routes: Mapping[str, dict[str, Any]]) -> Found:
    with asking(text):
        booking = await llm.astructured_predict(Booking, PROMPT, text=text)
    return Found(booking, routes[text])


def scores(found: Sequence[Found], rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How often each field is right, and how often all are."""
    pairs = [(one.booking.model_dump(), row) for one, row in zip(found, rows, strict=True)]
    right = {field: [got[field] == row[field] for got, row in pairs] for field in Booking.model_fields}
    right["all"] = [all(fields) for fields in zip(*right.values(), strict=True)]
    return {field: sum(hits) / len(rows) for field, hits in right.items()}


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    rows = read_rows(FILE)
    texts = [row["text"] for row in rows]
    routed, base = find_all(demo_llm(), texts), find_all(demo_llm(adapters={}), texts)
    for text, one, alone in list(zip(texts, routed, base, strict=True))[:SHOWN]:
        console.print(f"\n[bold]{text}[/]", highlight=False, soft_wrap=True)
        show("route", ", ".join(f"{adapter} {weight:.2f}" for adapter, weight in one.route["adapters"].items()))
        show("routed", str(one.booking))
        show("base model", str(alone.booking))
    console.print()
    for name, found in (("routed", routed), ("base model", base)):
        show(name, ", ".join(f"{field} {share:.2f}" for field, share in scores(found, rows).items()))
    nearest = Counter(nearest_task(one.route) for one in routed)
    show("first task", ", ".join(f"{task} for {times} of {len(rows)}" for task, times in nearest.items()))


def show(label: str, text: str) -> None:
    console.print(f"{label:>12}: {text}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
