import threading

import pytest

from lorauter_integrations.routing import remembered
from lorauter_integrations.routing.remembered import Remembered


@pytest.fixture
def clock(monkeypatch):
    """The time, which a test sets."""
    now = [100.0]
    monkeypatch.setattr(remembered.time, "monotonic", lambda: now[0])
    return now


def counted():
    """Makes "1", "2" and so on."""
    made = []

    def make(_):
        made.append(None)
        return str(len(made))

    return make


def test_text_is_made_once_within_its_time_and_anew_after_it(clock):
    text = Remembered(counted(), seconds=5)
    assert [text(), text()] == ["1", "1"]
    clock[0] += 4.9
    assert text() == "1"
    clock[0] += 0.1
    assert text() == "2"


def test_forgotten_text_is_made_anew(clock):
    text = Remembered(counted(), seconds=5)
    assert text() == "1"
    text.forget()
    assert [text(), text()] == ["2", "2"]


def test_what_was_read_before_a_change_is_not_kept_after_it():
    value, reading, changed = ["old"], threading.Event(), threading.Event()

    def read(_):
        seen = value[0]
        if seen == "old":
            reading.set()
            changed.wait(10)
        return seen

    text = Remembered(read, seconds=1000)
    reader = threading.Thread(target=text)
    reader.start()
    reading.wait(10)
    value[0] = "new"
    forgetter = threading.Thread(target=text.forget)
    forgetter.start()
    changed.set()
    reader.join()
    forgetter.join()
    assert text() == "new"
