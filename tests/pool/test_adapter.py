from pathlib import Path

from lorauter_integrations.pool import PICKLED, Adapter, LowRankPart

PARTS = {
    "m.1.q_proj": LowRankPart(4, 8, 8, 2.0, ("a", "b")),
    "m.0.q_proj": LowRankPart(2, 8, 8, 2.0, ("a", "b")),
    "m.0.up": LowRankPart(4, 8, 8, 2.0, ("a", "b")),
}


def adapter(**changes):
    return Adapter("name", Path("pool") / "name", "", "hash", PARTS, 7, **changes)


def test_ranks_and_targets_are_listed_once_and_sorted():
    assert (adapter().ranks, adapter().targets) == ([2, 4], ["q_proj", "up"])


def test_weights_file_is_safetensors_unless_the_adapter_is_a_pickle():
    assert adapter().weights_file == Path("pool/name/adapter_model.safetensors")
    assert adapter(weights=PICKLED).weights_file == Path("pool/name/adapter_model.bin")
