import copy
import pickle

import pytest

from lorauter_integrations import Mixture
from lorauter_integrations.errors import OptionError


def test_empty_mixture_is_the_base_model():
    assert len(Mixture()) == 0
    assert str(Mixture()) == "base model"


def test_order_of_writing_does_not_matter():
    one, other = Mixture({"a": 1, "b": -0.5}), Mixture({"b": -0.5, "a": 1.0})
    assert one == other
    assert hash(one) == hash(other)
    assert one != Mixture({"a": 1, "b": 0.5})


def test_weight_zero_is_left_out():
    assert Mixture({"a": 0.0, "b": 2}) == Mixture({"b": 2.0})


def test_mixture_reads_like_a_mapping():
    mixture = Mixture({"b": 2, "a": -1})
    assert dict(mixture) == {"a": -1.0, "b": 2.0}
    assert mixture["b"] == 2.0
    assert mixture.get("c") is None
    with pytest.raises(KeyError, match="c"):
        mixture["c"]


def test_text_puts_the_heaviest_first_whatever_its_sign():
    assert str(Mixture({"a": 0.25, "b": -1.5, "c": 0.25})) == "-1.50 b + 0.25 a + 0.25 c"


def test_repr_can_be_read_back():
    mixture = Mixture({"b": 2, "a": -1})
    assert eval(repr(mixture)) == mixture


def test_pickle_and_deepcopy_keep_the_mixture():
    mixture = Mixture({"a": 0.5})
    assert pickle.loads(pickle.dumps(mixture)) == copy.deepcopy(mixture) == mixture  # noqa: S301


def test_mixture_is_not_equal_to_a_plain_mapping():
    assert Mixture({"a": 1.0}) != {"a": 1.0}


@pytest.mark.parametrize(
    "weight", [float("nan"), float("-inf"), True, "1", None], ids=["nan", "inf", "bool", "text", "none"]
)
def test_weight_that_is_no_finite_number_is_refused(weight):
    message = rf"(?s)weight of adapter 'sql' must be a finite number, not {weight!r}.*Hint: write for example"
    with pytest.raises(OptionError, match=message):
        Mixture({"sql": weight})


@pytest.mark.parametrize("name", ["", 3], ids=["empty", "number"])
def test_name_that_is_no_text_is_refused(name):
    with pytest.raises(OptionError, match=f"must be a non-empty string, not {name!r}"):
        Mixture({name: 1.0})
