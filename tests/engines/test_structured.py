"""Schemas of 25 kinds on the real 135M model: every answer is valid JSON of its own schema, all in shared batches."""

import json
from enum import Enum
from typing import Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field

from lorauter_integrations import GenerationOptions, GenerationRequest, Grammar, Message, Mixture

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(900)]


class Mood(str, Enum):
    glad = "glad"
    sad = "sad"


class Address(BaseModel):
    street: str
    city: str
    zip: str = Field(pattern=r"^[0-9]{5}$")


class Person(BaseModel):
    name: str
    age: int = Field(ge=0, le=120)
    address: Address | None = None
    mood: Mood


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str] = Field(max_length=3)


class Owner(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")


class Folder(BaseModel):
    name: str
    inside: list["Folder"] = Field(default_factory=list, max_length=2)


class Nothing(BaseModel):
    pass


def record(required=None, **properties):
    return {"type": "object", "properties": properties, "required": required or list(properties)}


WHOLE = {"type": "integer"}
TRUTH = {"type": "boolean"}
TEXT = {"type": "string", "maxLength": 40}
SCHEMAS = {
    "nested model": Person.model_json_schema(),
    "discriminated union": Owner.model_json_schema(),
    "bounded recursion": Folder.model_json_schema(),
    "empty object": Nothing.model_json_schema(),
    "enum": {"enum": ["positive", "negative", "neutral"]},
    "unicode enum": {"enum": ["größer", "kleiner", "日本", 'with "quotes"', "emoji 🎈"]},
    "unicode names": record(größe={"type": "integer"}, 名前=TEXT),
    "optional": record(["title"], title=TEXT, year={"anyOf": [{"type": "integer"}, {"type": "null"}]}),
    "union of types": record(value={"anyOf": [TEXT, {"type": "number"}, TRUTH]}),
    "one of": {"oneOf": [record(a={"type": "integer"}), record(b=TEXT)]},
    "const": record(version={"const": 2}, ok={"type": "boolean"}),
    "integer bounds": record(score={"type": "integer", "minimum": 1, "maximum": 10}),
    "exclusive bounds": record(share={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
    "pattern": record(code={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"}),
    "date": record(day={"type": "string", "format": "date"}),
    "string lengths": record(word={"type": "string", "minLength": 3, "maxLength": 8}),
    "array of strings": {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 4},
    "array of objects": record(rows={"type": "array", "items": record(x=WHOLE, y=WHOLE), "maxItems": 3}),
    "tuple": {"type": "array", "prefixItems": [TEXT, {"type": "integer"}], "items": False, "minItems": 2},
    "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    "unbounded string": record(summary={"type": "string"}),
    "unbounded array": record(tags={"type": "array", "items": TEXT}),
    "all of": {"allOf": [record(a={"type": "integer"}), record(b={"type": "boolean"})]},
    "deep": record(a=record(b=record(c=record(d={"type": "boolean"})))),
    "booleans": record(x=TRUTH, y={"type": "null"}, z={"type": "array", "items": TRUTH, "maxItems": 4}),
}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_schema_gives_valid_json(real_lorauter, temperature):
    engine = real_lorauter.engine
    names = [*engine.adapters]
    assert len(SCHEMAS) == 25
    requests = [
        GenerationRequest(
            [Message("user", f"Describe something as JSON ({kind}).")],
            Mixture({names[place % len(names)]: 0.5, names[(place + 5) % len(names)]: 0.3}),
            GenerationOptions(max_tokens=900, temperature=temperature, seed=place),
            grammar=Grammar.json_schema(schema),
        )
        for place, (kind, schema) in enumerate(SCHEMAS.items())
    ]
    answers = dict(zip(SCHEMAS, engine.complete(requests), strict=True))
    for kind, answer in answers.items():
        assert answer.finish_reason == "stop", (kind, answer.text)
        jsonschema.validate(json.loads(answer.text), SCHEMAS[kind], format_checker=jsonschema.FormatChecker())
