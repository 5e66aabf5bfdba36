"""The first-order screening against autograd, dense matrices and the loss itself, on the pico model in float32."""

import pytest
import torch
from conftest import make_adapter, pico_model, pico_tokenizer

from lorauter_integrations import AdapterPool, GenerationRequest, LocalEngine, Message, Mixture
from lorauter_integrations.errors import EngineError, MappingError
from lorauter_integrations.mixing import base_shapes
from lorauter_integrations.mixing.first_order import Descent, likeness, slopes
from lorauter_integrations.mixing.low_rank import Factors

QUESTIONS = ["what is the colour of the sky", "add two and two", "why"]
TARGETS = ["blue", "four, as everyone knows", "because it is so"]


def modules(engine):
    return sorted({module for adapter in engine.adapters.values() for module in adapter.parts})


def requests():
    return [GenerationRequest([Message("user", text)], Mixture()) for text in QUESTIONS]


def loss(engine):
    return -sum(engine.log_likelihood(requests(), TARGETS)) / len(TARGETS)


def dense_gradients(engine, names):
    """Of the same loss, by autograd on the weights themselves, example by example."""
    model = engine.mixtures.model
    prompts, answers = engine._with_answers(requests(), TARGETS)
    total = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer]])
        logits = model(input_ids=ids).logits[0].log_softmax(-1)
        places = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
        total = total - logits[places, torch.tensor(answer)].mean() / len(prompts)
    weights = [model.get_submodule(module).weight for module in names]
    return dict(zip(names, torch.autograd.grad(total, weights), strict=True))


def dense(factors):
    return factors.scaling * factors.b.double() @ factors.a.double()


def test_a_descent_is_the_gradient_with_its_sign_turned(pico_engine):
    found = pico_engine.descent(requests(), TARGETS, modules(pico_engine))
    exact = dense_gradients(pico_engine, modules(pico_engine))
    assert sorted(found.parts) == modules(pico_engine)
    for module, (left, right) in found.parts.items():
        gap = left.float() @ right.float().T + exact[module]
        assert gap.norm() < 0.01 * exact[module].norm()  # kept in 16 bits
    assert found.norm == pytest.approx(sum(float(g.norm() ** 2) for g in exact.values()) ** 0.5, rel=1e-4)


def test_what_is_summed_up_in_pieces_is_the_same_direction(pico_engine, monkeypatch):
    together = pico_engine.descent(requests(), TARGETS, modules(pico_engine))
    monkeypatch.setattr("lorauter_integrations.mixing.first_order.TOKENS", 1)
    alone = pico_engine.descent(requests(), TARGETS, modules(pico_engine))
    assert alone.norm == pytest.approx(together.norm, rel=1e-4)
    for module, (left, right) in together.parts.items():
        other = alone.parts[module][0].float() @ alone.parts[module][1].float().T
        assert (left.float() @ right.float().T - other).norm() < 0.02 * other.norm()


def test_a_gradient_that_is_not_finite_is_an_error(pico_engine):
    with torch.no_grad():
        pico_engine.mixtures.model.model.norm.weight[0] = float("inf")
    with pytest.raises(EngineError, match=r"gradient of the base model's loss at .*_proj is not finite") as caught:
        pico_engine.descent(requests(), TARGETS, modules(pico_engine))
    assert 'schedule = "halving"' in caught.value.hint


def test_the_model_is_left_as_it_was(pico_engine):
    model = pico_engine.mixtures.model
    before = {name: (p.requires_grad, p.detach().clone()) for name, p in model.named_parameters()}
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    pico_engine.descent(requests(), TARGETS, modules(pico_engine))
    assert {name: p.requires_grad for name, p in model.named_parameters()} == {n: r for n, (r, _) in before.items()}
    assert all(p.grad is None and torch.equal(p, before[name][1]) for name, p in model.named_parameters())
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks


def test_a_slope_is_that_of_dense_matrices(pico_engine):
    names = sorted(pico_engine.adapters)
    exact = dense_gradients(pico_engine, modules(pico_engine))
    descent = pico_engine.descent(requests(), TARGETS, modules(pico_engine))
    for name, [slope] in zip(names, pico_engine.slopes(names, [descent]), strict=True):
        change = {m: dense(f) for m, f in pico_engine.mixtures.weights[name].factors.items()}
        inner = -sum(float((exact[module].double() * change[module]).sum()) for module in change)
        size = sum(float(matrix.norm() ** 2) for matrix in change.values()) ** 0.5
        assert slope == pytest.approx(inner / size, abs=2e-4 * descent.norm)


def test_it_tells_which_way_the_loss_goes(tmp_path):
    """A very weak adapter changes the loss by its slope times its length."""
    make_adapter(tmp_path / "weak", seed=3, lora_alpha=4e-3, r=4)
    engine = LocalEngine(pico_model(), pico_tokenizer(), AdapterPool.from_folder(tmp_path, base_shapes(pico_model())))
    descent = engine.descent(requests(), TARGETS, modules(engine))
    [[slope]] = engine.slopes(["weak"], [descent])
    size = sum(float(dense(f).norm() ** 2) for f in engine.mixtures.weights["weak"].factors.values()) ** 0.5
    weak = [GenerationRequest(r.messages, Mixture({"weak": 1.0})) for r in requests()]
    change = -sum(engine.log_likelihood(weak, TARGETS)) / len(TARGETS) - loss(engine)
    assert change == pytest.approx(-slope * size, rel=0.15)


def test_along_the_direction_it_is_the_gradients_length_and_back_minus_that():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(6, 2, generator=generator), torch.randn(5, 2, generator=generator)
    descent = Descent({"m": (left, right)}, float((left @ right.T).norm()))
    along = {"m": Factors(right.T, left, 3.0)}
    back = {"m": Factors(right.T, -left, 0.1)}
    aside = {"other": Factors(right.T, left, 1.0)}
    nothing = {"m": Factors(right.T, 0 * left, 1.0)}
    found = slopes([along, back, aside, nothing, {}], [descent])
    assert [slope / descent.norm for [slope] in found] == pytest.approx([1.0, -1.0, 0.0, 0.0, 0.0])


def test_many_directions_are_compared_as_one_by_one(pico_engine):
    names = modules(pico_engine)
    pairs = zip(requests(), TARGETS, strict=True)
    descents = [pico_engine.descent([request], [target], names) for request, target in pairs]
    partial = Descent({m: d for m, d in descents[0].parts.items() if "q_proj" in m}, descents[0].norm)
    descents.append(partial)
    each = [pico_engine.slopes(["wide"], [descent])[0][0] for descent in descents]
    assert pico_engine.slopes(["wide"], descents)[0] == pytest.approx(each)


def test_likeness_is_one_for_equals_and_falls_with_direction_and_strength():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, generator=generator), torch.randn(6, 2, generator=generator)
    mix = torch.tensor([[0.0, 2.0], [-1.0, 3.0]])
    one = {"m": Factors(a, b, 1.0)}
    same = {"m": Factors(mix @ a, b @ mix.inverse(), 1.0)}  # other factors, the same product
    double = {"m": Factors(a, b, 2.0)}
    turned = {"m": Factors(a, -b, 1.0)}
    elsewhere = {"n": Factors(a, b, 1.0)}
    assert likeness(one, [one, same, double, turned, elsewhere, {}]) == pytest.approx([1.0, 1.0, 0.5, -1.0, 0.0, 0.0])


@pytest.mark.parametrize("size", [1e15, 1e30, 1e300])
def test_numbers_of_absurd_size_spoil_nothing(size):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, generator=generator), torch.randn(6, 2, generator=generator)
    descent = Descent({"m": (b, a.T)}, float((b @ a).norm()))
    huge = {"m": Factors(a * min(size, 1e30), b, size)}
    [[slope]] = slopes([huge], [descent])
    assert slope == pytest.approx(descent.norm) or (slope == 0.0 and size == 1e300)
    assert likeness({"m": Factors(a, b, 1.0)}, [huge])[0] == pytest.approx(0.0, abs=1e-12)


def test_parts_found_at_two_times_are_one_direction(pico_engine):
    names = modules(pico_engine)
    whole = pico_engine.descent(requests(), TARGETS, names)
    first, second = (pico_engine.descent(requests(), TARGETS, part) for part in (names[:5], names[5:]))
    both = first.and_of(second)
    assert both.norm == pytest.approx(whole.norm, rel=1e-5)
    assert pico_engine.slopes(["wide"], [both])[0] == pytest.approx(pico_engine.slopes(["wide"], [whole])[0])


def test_a_direction_comes_back_from_its_file(tmp_path, pico_engine):
    descent = pico_engine.descent(requests(), TARGETS, modules(pico_engine))
    descent.save(tmp_path / "deep" / "file")
    back = Descent.load(tmp_path / "deep" / "file")
    assert pico_engine.slopes(["plain"], [back]) == pico_engine.slopes(["plain"], [descent])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "file").write_bytes(b"nonsense")
    with pytest.raises(MappingError, match=r"gradient kept in .*file cannot be read") as caught:
        Descent.load(tmp_path / "file")
    assert "delete the file" in caught.value.hint


def test_a_file_that_cannot_be_written_is_an_error_that_says_where(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(MappingError, match=r"gradient of a task cannot be kept in .*taken"):
        Descent({}, 1.0).save(tmp_path / "taken" / "file")


def test_an_engine_without_gradients_says_so(pico_engine):
    from lorauter_integrations import Engine

    with pytest.raises(EngineError, match="the engine LocalEngine cannot screen adapters") as caught:
        Engine.descent(pico_engine, requests(), TARGETS, ["m"])
    assert 'schedule = "halving"' in caught.value.hint
