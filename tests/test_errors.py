import inspect
import pickle

import pytest

from lorauter_integrations import errors
from lorauter_integrations.errors import LoRAuterError, UnknownAdapterError, listing

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_tree_and_drawn_in_the_docstring(kind):
    assert issubclass(kind, LoRAuterError)
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling_with_its_hint(kind):
    again = pickle.loads(pickle.dumps(kind("gone", hint="look there")))  # noqa: S301
    assert type(again) is kind
    assert str(again) == "gone\nHint: look there"


@pytest.mark.parametrize(
    ("name", "python_error"),
    [
        ("MissingExtraError", ImportError),
        ("UnknownTaskError", KeyError),
        ("UnknownAdapterError", KeyError),
    ],
)
def test_some_errors_are_pythons_own_too(name, python_error):
    assert issubclass(getattr(errors, name), python_error)


def test_message_stands_alone_without_a_hint():
    # A KeyError's own text would be the repr of its message.
    assert str(UnknownAdapterError("there is no 'x'")) == "there is no 'x'"


@pytest.mark.parametrize(
    ("names", "limit", "text"),
    [
        ([], 12, "none"),
        (["b", "a"], 12, "'a', 'b'"),
        (["c", "b", "a"], 2, "'a', 'b' and 1 more"),
        (["b", "a"], 2, "'a', 'b'"),
    ],
    ids=["none", "sorted", "cut", "just enough"],
)
def test_listing_of_names(names, limit, text):
    assert listing(names, limit) == text
