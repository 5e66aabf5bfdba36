import pickle

import pytest

from lorauter_integrations import Settings
from lorauter_integrations.errors import ConfigError

WHOLE = """
[model]
name = "org/model"
dtype = "float32"
[encoder]
prefix = "query: "
[index]
path = "state/index"
[pool]
path = "adapters"
budget_mib = 64
[routing]
k = 2
temperature = 0.1
[generation]
max_tokens = 12
stop = ["###"]
[mapping]
score = "log_likelihood"
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text='[model]\nname = "org/model"\n'):
        file = tmp_path / "lorauter.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write_file


def test_every_table_of_the_file_is_read(write):
    settings = Settings.read(write(WHOLE))
    assert (settings.model.name, settings.model.dtype) == ("org/model", "float32")
    assert settings.encoder.prefix == "query: "
    assert settings.pool.budget_mib == 64
    assert (settings.routing.k, settings.routing.temperature) == (2, 0.1)
    assert (settings.generation.options().max_tokens, settings.generation.options().stop) == (12, ("###",))
    assert settings.mapping.score == "log_likelihood"


def test_defaults(write):
    settings = Settings.read(write())
    assert (settings.routing.route_on, settings.routing.sticky) == ("system_and_last_user", False)
    assert (settings.routing.preset, settings.routing.k, settings.routing.temperature) == ("default", None, None)
    assert (settings.mapping.schedule, settings.mapping.shortlist) == ("screened", 24)
    assert settings.generation.options().temperature == 0.0


def test_paths_are_read_from_the_files_folder(write, tmp_path, monkeypatch):
    file = write(WHOLE)
    (tmp_path / "weights").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = Settings.read(file)
    assert settings.locate(settings.pool.path) == tmp_path / "adapters"
    assert settings.locate("/else/where").as_posix() == "/else/where"
    assert settings.weights("weights") == str(tmp_path / "weights")
    assert settings.weights("org/model") == "org/model"


def test_code_wins_over_the_environment_and_the_environment_over_the_file(write, monkeypatch):
    monkeypatch.setenv("LORAUTER_ROUTING__K", "5")
    monkeypatch.setenv("LORAUTER_GENERATION__STOP", '["END"]')
    settings = Settings.read(write(WHOLE), {"routing": {"k": 4}})
    assert (settings.routing.k, settings.routing.temperature) == (4, 0.1)
    assert Settings.read(write(WHOLE)).routing.k == 5
    assert settings.generation.stop == ("END",)


def test_overrides_win_over_the_file_key_by_key(write):
    settings = Settings.read(write(WHOLE), {"routing": {"k": 1}, "mapping": {"seed": 7}})
    assert (settings.routing.k, settings.routing.temperature) == (1, 0.1)
    assert (settings.mapping.seed, settings.mapping.score) == (7, "log_likelihood")


def test_factory_of_the_encoder_takes_the_place_of_a_name(write):
    file = write(MODEL + '[encoder]\nfactory = "app.encoders:make"')
    assert Settings.read(file).encoder.factory == "app.encoders:make"
    overrides = {"encoder": {"factory": "app:make", "name": "", "prefix": ""}}
    assert Settings.read(write(WHOLE), overrides).encoder.factory == "app:make"


def test_pickled_settings_keep_their_folder(write, tmp_path):
    settings = Settings.read(write(WHOLE), {"routing": {"sticky": True}})
    again = pickle.loads(pickle.dumps(settings))  # noqa: S301
    assert again == settings
    assert again.locate(again.pool.path) == tmp_path / "adapters"


MODEL = '[model]\nname = "m"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MODEL + "[routing]\nkk = 3", "routing.kk: Extra inputs are not permitted"),
        (MODEL + "[router]\nk = 3", "router: Extra inputs are not permitted"),
        (MODEL + '[routing]\nk = "many"', "routing.k: Input should be a valid integer"),
        (MODEL + "[routing]\nk = 0", "routing.k: .*greater than or equal to 1"),
        (MODEL + "[routing]\ntemperature = 0", "routing.temperature.*greater than 0.*'fitted'"),
        (MODEL + '[routing]\nroute_on = "all"', "routing.route_on: .*'system_and_last_user'.* or 'conversation'"),
        (MODEL + '[encoder]\nname = "n"\nfactory = "m:f"', "encoder: .*factory makes the whole encoder.*'name'"),
        (MODEL + '[encoder]\nprefix = "p"\nfactory = "m:f"', "encoder: .*factory makes the whole encoder.*'prefix'"),
        (MODEL + '[encoder]\nname = ""', "encoder: .*give a name or a factory"),
        (MODEL + '[mapping]\nschedule = "random"', "mapping.schedule: .*'halving' or 'uniform'"),
        (MODEL + "[generation]\ntemperature = -1", "temperature must be a number from 0 to inf, not -1"),
        ('[model]\ndevice = "cpu"', "model.name: Field required"),
        ("[routing]\nk = 1", "model: Field required"),
        ("routing = 3\n" + MODEL, "routing: Input should be a valid dictionary"),
    ],
    ids=[
        "unknown key",
        "unknown table",
        "type",
        "range",
        "temperature 0",
        "route_on",
        "name and factory",
        "prefix and factory",
        "no encoder",
        "choice",
        "generation",
        "no name",
        "no model",
        "no table",
    ],
)
def test_wrong_value_is_named_with_its_table_and_key(write, text, message):
    with pytest.raises(ConfigError, match=rf"(?s)lorauter\.toml: .*{message}.*Hint: see docs/settings.md"):
        Settings.read(write(text))


def test_wrong_value_in_the_environment_is_named(write, monkeypatch):
    monkeypatch.setenv("LORAUTER_ROUTING__K", "many")
    with pytest.raises(ConfigError, match=r"routing.k: Input should be a valid integer"):
        Settings.read(write())


def test_unreadable_value_in_the_environment_is_named(write, monkeypatch):
    monkeypatch.setenv("LORAUTER_GENERATION__STOP", "END")
    with pytest.raises(ConfigError, match=r'environment variable LORAUTER_.* cannot be read: .*"generation"'):
        Settings.read(write())


@pytest.mark.parametrize("raw", [b"[model\n", b'[model]\nname = "caf\xe9"'], ids=["not TOML", "not UTF-8"])
def test_file_that_cannot_be_read_is_refused(write, raw):
    file = write()
    file.write_bytes(raw)
    with pytest.raises(ConfigError, match=r"(?s)lorauter\.toml cannot be read: .*Hint: it must be a TOML file"):
        Settings.read(file)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)no settings file .*gone\.toml.*Hint: give one with --config"):
        Settings.read(tmp_path / "gone.toml")


def test_settings_cannot_be_changed(write):
    with pytest.raises(ValueError, match="frozen"):
        Settings.read(write()).routing.k = 9
