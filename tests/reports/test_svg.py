import pytest

from lorauter_integrations.reports.svg import Axis, element, round_steps, short


@pytest.mark.parametrize(
    ("low", "high", "steps"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (38.2, 101, [20, 40, 60, 80, 100, 120]),
        (-0.15, 0.93, [-0.2, 0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0, [0, 0.2]),
        (0, 17.3, [0, 5, 10, 15, 20]),
        (-3, -1, [-3, -2.5, -2, -1.5, -1]),
    ],
)
def test_steps_are_round_and_hold_the_ends(low, high, steps):
    assert round_steps(low, high) == steps


def test_axis_maps_its_ends_and_the_middle_between_them():
    assert [Axis(10, 30, 100, 0).at(value) for value in (10, 20, 30)] == [100, 50, 0]
    assert [Axis(1, 100, 0, 50, log=True).at(value) for value in (1, 10, 100)] == pytest.approx([0, 25, 50])


def test_axis_of_one_value_puts_it_in_the_middle():
    assert Axis(5, 5, 0, 80).at(5) == 40


def test_values_whose_texts_would_meet_are_left_out():
    assert Axis(1, 1000, 0, 300, log=True).apart([10, 1, 10, 12, 1000]) == [1, 10, 1000]


def test_text_of_an_element_is_escaped_and_broken_unicode_replaced():
    drawn = element("circle", tip='<a & "b">\ud800', cx=1.25, kind='x"y', fill_opacity="0.5")
    assert drawn == (
        '<circle cx="1.2" class="x&quot;y" fill-opacity="0.5">'
        "<title>&lt;a &amp; &quot;b&quot;&gt;\ufffd</title></circle>"
    )
    assert element("line", x1=3.0) == '<line x1="3"/>'


def test_numbers_at_an_axis_have_no_needless_decimals():
    assert [short(value) for value in (0.25, 1.0, 10_000, -0.2, 0)] == ["0.25", "1", "10,000", "-0.2", "0"]
