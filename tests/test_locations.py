import pytest

from lorauter_integrations.errors import ConfigError
from lorauter_integrations.locations import resolve_location


def test_relative_path_is_read_from_the_given_folder(tmp_path):
    (tmp_path / "model").mkdir()
    assert resolve_location("model", relative_to=tmp_path) == str(tmp_path / "model")


def test_relative_path_is_read_from_the_working_folder_else(tmp_path, monkeypatch):
    (tmp_path / "m.gguf").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve_location("./m.gguf") == str(tmp_path / "m.gguf")


def test_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve_location("~/model") == str(tmp_path / "model")


def test_name_that_is_no_path_is_a_hub_name(tmp_path):
    assert resolve_location("org/model", relative_to=tmp_path) == "org/model"


@pytest.mark.parametrize("location", ["./gone", "../gone", "/gone/model", "~/gone-for-good"])
def test_written_path_that_does_not_exist_is_refused(tmp_path, location):
    with pytest.raises(ConfigError, match=rf"'{location}' does not exist \(looked at /"):
        resolve_location(location, relative_to=tmp_path)


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "lorauter_weights_pkg"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "inner" / "w.bin").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_package_is_found_without_importing_it(package):
    assert resolve_location("package:lorauter_weights_pkg") == str(package)
    assert resolve_location("package:lorauter_weights_pkg/inner/w.bin") == str(package / "inner" / "w.bin")


def test_file_that_the_package_lacks_is_named(package):
    with pytest.raises(ConfigError, match="'lorauter_weights_pkg' has no file 'gone/x'"):
        resolve_location(f"package:{package.name}/gone/x")


@pytest.mark.parametrize("name", ["no_such_pkg", "json.decoder", "string", ""])
def test_package_that_is_not_installed_is_refused(name):
    hint = f"Hint: pip install {name.replace('_', '-')}"
    with pytest.raises(ConfigError, match=f"(?s)package '{name}' is not installed.*{hint}"):
        resolve_location(f"package:{name}/x")
