import os
import subprocess
import sys

import pytest

from lorauter_integrations.errors import MappingError
from lorauter_integrations.evaluation.predictions import Predictions
from lorauter_integrations.journal import Journal


def test_lines_come_back_and_a_torn_one_is_cut_off(tmp_path):
    file = tmp_path / "deep" / "lines"
    journal = Journal(file, "ledger")
    assert journal.lines() == []
    journal.append("one\ntwo\n")
    with file.open("ab") as stream:
        stream.write(b"thr")
    assert journal.lines() == [b"one", b"two"]
    assert file.read_bytes() == b"one\ntwo\n"


def test_many_processes_write_whole_lines(tmp_path):
    program = (
        "import sys; from pathlib import Path; from lorauter_integrations.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), 'ledger')\n"
        "for _ in range(30): journal.append(sys.argv[2] * 2000 + '\\n')\n"
    )
    file = tmp_path / "lines"
    runs = [subprocess.Popen([sys.executable, "-c", program, str(file), letter]) for letter in "ab"]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert sorted(Journal(file, "ledger").lines()) == [b"a" * 2000] * 30 + [b"b" * 2000] * 30


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MappingError, match=r"the predictions .*file/lines cannot be written: "):
        Journal(tmp_path / "file" / "lines", "predictions").append("one\n")
    os.mkdir(tmp_path / "folder")
    with pytest.raises(MappingError, match=r"the ledger .*folder cannot be read: "):
        Journal(tmp_path / "folder", "ledger").lines()


@pytest.mark.parametrize("text", ["a\u2028b", "a\x85b", "a\x0bb\x1cc", "\ud800 alone", "two\nlines\r\n"])
def test_an_answer_of_any_characters_is_kept(tmp_path, text):
    Predictions(tmp_path / "file").keep({"key": text})
    assert Predictions(tmp_path / "file")["key"] == text
