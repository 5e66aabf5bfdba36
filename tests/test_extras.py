from importlib import import_module

import pytest

from lorauter_integrations.errors import MissingExtraError
from lorauter_integrations.extras import needs_extra


@pytest.mark.parametrize("module", ["no_such_framework", "no_such_framework.core"])
def test_missing_framework_is_answered_with_its_extra(module):
    hint = r"Hint: pip install 'lorauter-integrations\[langchain\]'"
    with (
        pytest.raises(MissingExtraError, match=f"this needs no-such-framework, which is not installed\n{hint}"),
        needs_extra("langchain", "no_such_framework"),
    ):
        import_module(module)


def test_other_missing_module_is_not_taken_for_the_framework():
    with (
        pytest.raises(ModuleNotFoundError, match="No module named 'no_such_other'") as caught,
        needs_extra("langchain", "no_such_framework"),
    ):
        import_module("no_such_other")
    assert not isinstance(caught.value, MissingExtraError)


def test_installed_framework_passes():
    with needs_extra("langchain", "json"):
        assert import_module("json.decoder")
