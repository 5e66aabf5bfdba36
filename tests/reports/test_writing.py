import pytest
from made_rankings import small

from lorauter_integrations.errors import MappingError
from lorauter_integrations.reports import write_page
from lorauter_integrations.reports.heat_map import draw_heat_map


@pytest.mark.parametrize("write", [write_page, draw_heat_map])
def test_report_that_cannot_be_written_is_one_clear_error(tmp_path, write):
    (tmp_path / "taken").touch()
    with pytest.raises(MappingError, match=r"the report .*taken/report cannot be written: .*exists") as caught:
        write(small(), tmp_path / "taken" / "report")
    assert "the mapping itself is kept" in caught.value.hint


@pytest.mark.parametrize("write", [write_page, draw_heat_map])
def test_report_that_exists_is_replaced(tmp_path, write):
    file = tmp_path / "folder" / "report"
    file.parent.mkdir()
    file.write_text("old")
    write(small(), file)
    assert b"old" not in file.read_bytes()[:3]
    assert file.stat().st_size > 5000
