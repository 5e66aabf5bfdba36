import pytest

from lorauter_integrations.choice import CHOICE_NAMES, Choice
from lorauter_integrations.errors import OptionError


def last(messages):
    return messages[-1].content


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"adapters": {"a": 1.0}, "task": "t"}, "adapters and task exclude each other"),
        ({"route_on": "everything"}, "unknown route_on 'everything'"),
        ({"sticky": "yes"}, "sticky must be true or false, not 'yes'"),
    ],
    ids=["both", "route_on", "sticky"],
)
def test_choice_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(OptionError, match=message):
        Choice(**fields)


@pytest.mark.parametrize(
    ("given", "keywords", "wanted"),
    [
        ({}, {}, Choice()),
        ({"task": "t", "sticky": True}, {}, Choice(task="t", sticky=True)),
        ({"task": "t"}, {"adapters": {"a": 1.0}}, Choice(adapters={"a": 1.0})),
        ({"adapters": {"a": 1.0}}, {"task": "t"}, Choice(task="t")),
        ({"route_on": "last_user", "sticky": True}, {"route_on": last}, Choice(route_on=last, sticky=True)),
        ({"route_on": "last_user", "sticky": True}, {"sticky": False}, Choice(route_on="last_user", sticky=False)),
        ({"route_on": "last_user"}, {"task": "t"}, Choice(task="t", route_on="last_user")),
    ],
    ids=["nothing", "fields", "adapters win", "task wins", "route_on wins", "sticky wins", "each for itself"],
)
def test_a_calls_keywords_win_over_the_fields(given, keywords, wanted):
    nothing = dict.fromkeys(CHOICE_NAMES)
    assert Choice.asked(nothing | given, nothing | keywords) == wanted
    assert Choice.asked(given, keywords) == wanted
