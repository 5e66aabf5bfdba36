"""Every kind of adapter that people collect, checked together, and the good ones used."""

import hashlib
import os
import sys

import pytest
import torch
import wild_files
from conftest import pico_model, pico_tokenizer
from peft import PeftModel
from wild import BASE, KINDS, write_all

from lorauter_integrations import AdapterPool, LocalEngine, Mixture
from lorauter_integrations.mixing import base_shapes

ALL = {**KINDS, **wild_files.kinds()}
USED = [kind.name for kind in ALL.values() if kind.end in ("accepted", "warning")]
IDS = torch.arange(40).reshape(2, 20) * 7 % 250


def snapshot(folder):
    """What everything in a folder is: its size, its time, where it leads."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = os.path.join(place, name)
            facts = os.lstat(path)
            leads = os.readlink(path) if os.path.islink(path) else ""
            found[path] = (facts.st_size, facts.st_mtime_ns, leads)
    return found


def all_weights_hash(model):
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS).logits


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the pool, a module that a config names as megatron's, and what hostile files would touch."""
    place = tmp_path_factory.mktemp("wild")
    write_all(place / "pool")
    (place / "modules").mkdir()
    (place / "modules" / "evil.py").write_text(f"open({str(place / 'imported')!r}, 'w').close()\n")
    return place


@pytest.fixture(scope="module")
def pool(place):
    return AdapterPool.from_folder(place / "pool", base_shapes(pico_model()), base=BASE)


@pytest.fixture(scope="module")
def engine(pool):
    return LocalEngine(pico_model(), pico_tokenizer(), pool)


def test_the_pool_is_as_wild_as_it_should_be(pool):
    assert len(ALL) > 80
    assert set(pool) | set(pool.refused) == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_kind_ends_as_it_must(pool, name):
    kind = ALL[name]
    if kind.end == "refused":
        assert kind.words in pool.refused[name]
        return
    adapter = pool[name]
    expected = {"accepted": ("", 0), "warning": ("", 1), "alone": (kind.words, 0)}[kind.end]
    assert (adapter.alone, len(adapter.warnings)) == expected
    assert kind.end != "warning" or kind.words in adapter.warnings[0]


@pytest.mark.filterwarnings("ignore")  # PEFT has something to say of some of them
@pytest.mark.parametrize("name", USED)
def test_usable_adapter_computes_what_peft_computes_for_it_alone(engine, place, name):
    original = "plain" if ALL[name].like_plain else name
    reference = PeftModel.from_pretrained(pico_model(), str(place / "pool" / original)).eval()
    with engine.mixtures.rows([Mixture({name: 1.0})]):
        ours = logits(engine.mixtures.model)
    expected = logits(reference)
    assert (expected - logits(pico_model())).abs().max() > 1e-3  # the adapter does something
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_checking_and_using_all_changes_no_base_weight_and_touches_no_file(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place / "modules"))
    before, model = snapshot(place), pico_model()
    weights = all_weights_hash(model)
    for allow_bin in (False, True):
        pool = AdapterPool.from_folder(place / "pool", base_shapes(model), base=BASE, allow_bin=allow_bin)
    engine = LocalEngine(model, pico_tokenizer(), AdapterPool({name: pool[name] for name in USED}))
    for name in USED:
        with engine.mixtures.rows([Mixture({name: 1.0})]):
            logits(engine.mixtures.model)
    assert all_weights_hash(model) == weights == all_weights_hash(pico_model())
    assert snapshot(place) == before
    assert "evil" not in sys.modules and not (place / "imported").exists()
    assert not wild_files.marker_of(place / "pool" / "pickle-hostile").exists()


def test_a_flag_takes_the_good_pickle_and_not_the_hostile_one(place):
    pool = AdapterPool.from_folder(place / "pool", base_shapes(pico_model()), allow_bin=True)
    assert pool["pickled"].parts == pool["plain"].parts
    assert "adapter_model.bin is not a file of tensors" in pool.refused["pickle-hostile"]


def test_strict_base_refuses_what_a_warning_was_for(place):
    pool = AdapterPool.from_folder(place / "pool", base_shapes(pico_model()), base=BASE, strict_base=True)
    assert pool.refused["chat-variant"] == "it was trained on 'org/pico-Chat'; the base model is 'org/pico-Llama'"
    assert "qlora" in pool
    assert "does not say on which base model" in pool.refused["plain"]
