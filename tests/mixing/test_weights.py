"""What is kept in memory, where and in which type; counted in bytes, files and calls, never in time."""

import gc
import json
import shutil
import sys
import threading
from dataclasses import replace

import pytest
import torch
from conftest import make_adapter, pico_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.overrides import TorchFunctionMode

from lorauter_integrations import AdapterPool
from lorauter_integrations.errors import PoolError, UnknownAdapterError
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.mixing import reading as module
from lorauter_integrations.mixing.base_model import Placement, model_device, model_dtype, placements
from lorauter_integrations.mixing.weights import GIB, CacheStats, WeightCache, side_by_side

CPU = torch.device("cpu")
Q = "model.layers.0.self_attn.q_proj"
V = "model.layers.0.self_attn.v_proj"


def on_cpu(_):
    return Placement(CPU, torch.float32)


def bytes_of(adapter):
    return sum(part.rank * (part.inputs + part.outputs) * 4 for part in adapter.parts.values())


@pytest.fixture
def opened(monkeypatch):
    """Names of the adapters whose files were opened."""
    names = []
    real = module.safe_open

    def counted(file, **options):
        names.append(file.parent.name)
        return real(file, **options)

    monkeypatch.setattr(module, "safe_open", counted)
    return names


@pytest.fixture(scope="session")
def same_size(tmp_path_factory):
    """Four adapters of one size, and that size."""
    folder = tmp_path_factory.mktemp("same")
    for seed, name in enumerate("abcd"):
        make_adapter(folder / name, seed=seed)
    pool = AdapterPool.from_folder(folder, base_shapes(pico_model()))
    return pool, bytes_of(pool["a"])


# --- what is read


def test_factors_are_those_of_the_file_in_the_type_asked_for(pico_pool):
    weights = WeightCache(pico_pool, lambda _: Placement(CPU, torch.float16))["rslora"].factors
    stored = load_file(pico_pool["rslora"].weights_file)
    assert set(weights) == set(pico_pool["rslora"].parts)
    for name, part in pico_pool["rslora"].parts.items():
        factors = weights[name]
        assert torch.equal(factors.a, stored[part.tensors[0]].half())
        assert torch.equal(factors.b, stored[part.tensors[1]].half())
        assert factors.scaling == pytest.approx(3 / 6**0.5)


def test_weights_in_memory_do_not_follow_the_file(pico_pool_folder, tmp_path):
    shutil.copytree(pico_pool_folder / "plain", tmp_path / "plain")
    pool = AdapterPool.from_folder(tmp_path, base_shapes(pico_model()))
    factors = WeightCache(pool, on_cpu)["plain"].factors[Q]
    before = factors.a.clone()
    file = pool["plain"].weights_file
    with file.open("r+b") as stream:  # in place, as a copy onto it would
        stream.write(bytes(file.stat().st_size))
    assert torch.equal(factors.a, before)


def test_each_module_has_its_own_place_and_type(pico_pool):
    def place(name):
        return Placement(torch.device("meta"), torch.float16) if name == Q else on_cpu(name)

    cache = WeightCache(pico_pool, place)
    weights = cache["plain"].factors
    assert (weights[Q].a.device.type, weights[Q].b.device.type, weights[Q].b.dtype) == ("meta", "meta", torch.float16)
    assert weights[Q].a.shape == (4, 32)
    stored = load_file(pico_pool["plain"].weights_file)
    assert torch.equal(weights[V].b, stored[pico_pool["plain"].parts[V].tensors[1]])
    part = pico_pool["plain"].parts[Q]
    assert cache.size == bytes_of(pico_pool["plain"]) - 2 * part.rank * (part.inputs + part.outputs)


class PretendCuda(TorchFunctionMode):
    """Notes what would be asked of CUDA; the memory stays ordinary."""

    def __init__(self):
        super().__init__()
        self.page_locked = []
        self.copies = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.empty:
            self.page_locked.append(kwargs.pop("pin_memory"))
        if function is torch.Tensor.to:
            self.copies.append((args[0].dtype, *args[1:], kwargs))
            return args[0].clone()
        return function(*args, **kwargs)


@pytest.mark.parametrize(
    ("device", "at_once"), [("cuda:1", True), ("cpu", False), ("mps", False)], ids=["cuda", "cpu", "mps"]
)
def test_an_adapter_goes_to_cuda_in_one_copy_from_page_locked_memory(pico_pool, device, at_once):
    place = Placement(torch.device(device), torch.bfloat16)
    with PretendCuda() as seen:
        weights = WeightCache(pico_pool, lambda _: place)["wide"].factors
    assert seen.page_locked == [at_once]
    assert seen.copies == [(torch.bfloat16, place.device, {"non_blocking": at_once})]
    stored = load_file(pico_pool["wide"].weights_file)
    assert all(
        torch.equal(weights[name].b, stored[part.tensors[1]].bfloat16())
        for name, part in pico_pool["wide"].parts.items()
    )


# --- where to


class Packed(nn.Module):
    """A quantised layer that keeps its weight in a buffer, as GPTQ and AWQ do."""

    def __init__(self, dtype):
        super().__init__()
        self.register_buffer("qweight", torch.zeros(4, 4, dtype=dtype))
        self.compute_dtype = torch.float32  # of the layer's inside; its output has the activations' type


@pytest.mark.parametrize("stored", [torch.uint8, torch.int32, torch.float8_e4m3fn], ids=str)
def test_factors_of_a_quantised_layer_have_the_type_of_the_activations(stored):
    model = nn.Sequential(Packed(stored), nn.Linear(4, 4, dtype=torch.float16), nn.LayerNorm(4))
    place = placements(model)
    assert place("0") == Placement(CPU, torch.float16)
    assert place("1") == Placement(CPU, torch.float16)
    assert place("2") == Placement(CPU, torch.float32)  # its own, such as modules that are kept in float32
    assert model_dtype(model) == torch.float16


def test_factors_follow_the_devices_of_a_model_that_is_spread():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    place = placements(model)
    assert [place("0").device.type, place("1").device.type] == ["cpu", "meta"]
    assert model_device(model) == CPU


def test_a_model_without_a_weight_to_compute_in_says_its_type_in_its_config():
    model = Packed(torch.uint8)
    assert model_dtype(model) == torch.bfloat16
    model.config = pico_model().config
    model.config.dtype = torch.float16
    assert model_dtype(model) == torch.float16


def test_offloaded_weights_are_met_where_accelerate_computes():
    accelerate = pytest.importorskip("accelerate")
    model = accelerate.cpu_offload(pico_model(), execution_device=CPU)
    assert model.get_submodule(Q).weight.device.type == "meta"
    assert placements(model)(Q) == on_cpu(Q)
    assert model_device(model) == CPU
    model.get_submodule(Q)._hf_hook.execution_device = "cuda:1"
    assert placements(model)(Q).device == torch.device("cuda:1")


def test_token_ids_go_to_the_input_embeddings():
    model = pico_model()
    model.lm_head = nn.Linear(32, 258, device="meta")
    assert model_device(model) == CPU
    model.model.embed_tokens.to("meta")
    assert model_device(model).type == "meta"


# --- how much


def test_the_least_used_is_dropped_and_everything_is_counted(same_size):
    pool, size = same_size
    cache = WeightCache(pool, on_cpu, budget=2 * size + 1)
    assert cache.stats == CacheStats(
        resident=0, pinned=0, bytes=0, budget=2 * size + 1, hits=0, misses=0, evictions=0
    )
    for name in "abac":
        cache[name]
    assert cache.resident == ["a", "c"]
    assert cache.size == 2 * size
    assert cache.stats == CacheStats(2, 0, 2 * size, 2 * size + 1, hits=1, misses=3, evictions=1)


def test_an_adapter_larger_than_the_budget_is_kept_alone(same_size):
    pool, size = same_size
    cache = WeightCache(pool, on_cpu, budget=1)
    assert cache["a"]
    assert cache["b"]
    assert (cache.resident, cache.size) == (["b"], size)


def test_a_failed_read_is_not_counted(same_size):
    pool, size = same_size
    changed = AdapterPool({"a": pool["a"], "b": replace(pool["b"], changed=0)})
    cache = WeightCache(changed, on_cpu)
    cache["a"]
    with pytest.raises(PoolError, match="weights of adapter 'b' have changed since the pool was checked"):
        cache["b"]
    assert cache.stats == CacheStats(1, 0, size, GIB, hits=0, misses=1, evictions=0)


def test_adapters_asked_for_together_do_not_drop_one_another(same_size, opened):
    pool, size = same_size
    cache = WeightCache(pool, on_cpu, budget=2 * size)
    cache["c"]
    stacks = side_by_side(["a", "b", "c"], cache)
    assert opened == ["c", "a", "b"]
    assert cache.size <= 2 * size
    expected = [load_file(pool[name].weights_file)[pool[name].parts[Q].tensors[0]] for name in "abc"]
    assert torch.equal(stacks[Q].a, torch.cat(expected))
    assert [block[:2] for block in stacks[Q].layout] == [(0, 4), (1, 4), (2, 4)]


def test_names_of_an_iterator_are_stacked_too(same_size):
    pool, _ = same_size
    assert side_by_side(iter("ba"), WeightCache(pool, on_cpu))[Q].a.shape == (8, 32)


# --- pinned


def test_a_pinned_adapter_stays(same_size, opened):
    pool, size = same_size
    cache = WeightCache(pool, on_cpu, budget=2 * size)
    cache.pin(["a"])
    for name in "bcdbcda":
        cache[name]
    assert opened.count("a") == 1
    assert cache.stats == CacheStats(2, 1, 2 * size, 2 * size, hits=1, misses=7, evictions=5)
    cache.pin(["a"])
    cache.unpin(["a", "nobody"])
    for name in "bc":
        cache[name]
    assert cache.resident == ["b", "c"]
    assert cache.stats.pinned == 0


def test_pinned_adapters_alone_may_not_exceed_the_budget(same_size, opened):
    pool, size = same_size
    cache = WeightCache(pool, on_cpu, budget=2 * size)
    cache.pin(["a"])
    numbers = rf"3 pinned adapters take {3 * size:,} bytes; {2 * size:,} may be in memory\nHint: pin fewer"
    with pytest.raises(PoolError, match=numbers):
        cache.pin(["b", "c"])
    assert opened == ["a"]
    assert cache.stats.pinned == 1
    cache.pin(["b"])
    assert cache["c"]  # serves, and is not kept
    assert sorted(cache.resident) == ["a", "b"]


def test_what_cannot_be_read_pins_nothing(same_size):
    pool, _ = same_size
    changed = AdapterPool({"a": pool["a"], "b": replace(pool["b"], changed=0)})
    cache = WeightCache(changed, on_cpu)
    with pytest.raises(UnknownAdapterError, match="there is no adapter 'nobody'"):
        cache.pin(["a", "nobody"])
    assert cache.resident == []
    with pytest.raises(PoolError, match="weights of adapter 'b' have changed"):
        cache.pin(["a", "b"])
    assert cache.stats.pinned == 0


# --- many


MANY = 1500


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """1,500 adapters on disk, each with values and a scaling of its own."""
    folder = tmp_path_factory.mktemp("many")
    names = [f"base_model.model.{Q}.lora_{side}.weight" for side in "AB"]
    for i in range(MANY):
        (folder / f"{i:04}").mkdir()
        tensors = {names[0]: torch.full((1, 32), float(i + 1)), names[1]: torch.full((32, 1), float(-i - 1))}
        save_file(tensors, folder / f"{i:04}" / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": 1, "lora_alpha": i + 1, "target_modules": ["q_proj"], "bias": "none"}
        (folder / f"{i:04}" / "adapter_config.json").write_text(json.dumps(config))
    return AdapterPool.from_folder(folder, {Q: (32, 32)})


def calls_of(function):
    """How many functions of Python and C a call makes."""
    count = 0

    def note(_, event, __):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    gc.disable()  # libraries have functions called at every collection
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count


def test_adapter_1500_is_as_much_work_as_adapter_1_and_memory_stays_within_the_budget(many, opened):
    budget = 20 * 64 * 4
    cache = WeightCache(many, placements(pico_model()), budget=budget)
    cache.pin(["0000"])
    work = []
    for i, name in enumerate(many):
        work.append(calls_of(lambda name=name: cache[name]))
        factors = cache[name].factors[Q]
        assert (float(factors.a[0, 0]), float(factors.b[0, 0]), factors.scaling) == (i + 1, -i - 1, i + 1)
        assert cache.size <= budget
    assert opened == list(many)
    first, full, last = work[1], work[20], work[-1]
    only = WeightCache(AdapterPool({"0001": many["0001"]}), placements(pico_model()))
    assert set(work[1:20]) == {first} == {calls_of(lambda: only["0001"])}
    assert set(work[20:]) == {full} == {last}  # one is dropped for each
    assert last - first < 20
    assert cache.stats == CacheStats(20, 1, budget, budget, hits=MANY + 1, misses=MANY, evictions=MANY - 20)


def test_threads_share_a_cache(same_size):
    pool, size = same_size
    cache = WeightCache(pool, on_cpu, budget=2 * size)
    cache.pin("a")
    done, wrong = threading.Event(), []

    def use(seed):
        order = torch.randint(0, 4, (150,), generator=torch.Generator().manual_seed(seed)).tolist()
        wrong.extend(1 for place in order if set(cache["abcd"[place]].factors) != set(pool["a"].parts))

    def watch():
        while not done.is_set():
            stats = cache.stats
            if stats.bytes != stats.resident * size or stats.bytes > stats.budget:
                wrong.append(stats)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
        watcher = threading.Thread(target=watch)
        for thread in [watcher, *threads]:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        watcher.join()
    finally:
        sys.setswitchinterval(before)
    assert wrong == []
    stats = cache.stats
    assert stats.hits + stats.misses == 4 * 150 + 1
    assert stats.misses - stats.evictions == stats.resident == 2
