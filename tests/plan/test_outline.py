# SPDX-License-Identifier: Apache-2.0
"""Plans without weights: equal to those of the compiled model, in next to no memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import torch2fpga
from tests.tiny import BATCH, HEADS, HIDDEN, SEQ, WIDTH, WORDS, ids, padding
from torch2fpga.compiler import wanted_plan
from torch2fpga.errors import CompileError, InputError, UnsupportedModel
from torch2fpga.lower.attention import SoftmaxStage
from torch2fpga.plan.outline import FEW, LARGE, Prompt, Windows, _some_of_each, outlined

transformers = pytest.importorskip("transformers")
LAYERS = 5

CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {"num_hidden_layers": LAYERS, "hidden_size": WIDTH, "num_attention_heads": HEADS,
             "intermediate_size": HIDDEN, "vocab_size": WORDS, "max_position_embeddings": 24},
    "gpt2": {"n_layer": LAYERS, "n_embd": WIDTH, "n_head": HEADS, "vocab_size": WORDS, "n_positions": 24},
    "llama": {"num_hidden_layers": LAYERS, "hidden_size": 24, "num_attention_heads": 4,
              "num_key_value_heads": 2, "intermediate_size": HIDDEN, "vocab_size": WORDS,
              "max_position_embeddings": 24},
}  # fmt: skip


def config(kind: str) -> Any:
    return transformers.CONFIG_MAPPING[kind](**CONFIGS[kind])


def compiled_plan(kind: str, precision: str) -> Any:
    """The plan of the model with weights."""
    made = config(kind)
    made._attn_implementation = "eager"
    if kind == "bert":
        example: Any = {"input_ids": ids(), "attention_mask": padding()}
        model: nn.Module = transformers.BertModel(made)
    else:
        example = (ids(),)
        model = Prompt(transformers.AutoModelForCausalLM.from_config(made))
    calibration = [example] * 8
    return torch2fpga.compile(model.eval(), example, calibration=calibration, precision=precision).plan


@pytest.mark.parametrize("precision", ["w8a8", "w4a8"])
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_an_outline_is_the_plan_of_the_model(kind: str, precision: str) -> None:
    """Arrays, places, cycles and resources: nothing of a plan depends on what weights say."""
    got = torch2fpga.outline(config(kind), tokens=SEQ, batch=BATCH, precision=precision)
    want = compiled_plan(kind, precision)
    assert got.plan == want.plan
    assert (got.cycles, got.macs, got.pace) == (want.cycles, want.macs, want.pace)
    assert got.regions == want.regions and got.boundaries == want.boundaries
    assert [(s.name, s.path, s.busy, s.dsp) for s in got.stages] == [
        (s.name, s.path, s.busy, s.dsp) for s in want.stages
    ]


def test_all_layers_count() -> None:
    cycles = []
    for layers in (FEW, LAYERS):
        made = config("gpt2")
        made.n_layer = layers
        cycles.append(torch2fpga.outline(made, tokens=SEQ, plan="simple").cycles)
    assert cycles[1] > 1.8 * cycles[0]


def test_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config("gpt2").to_dict()))
    report = torch2fpga.outline(file, tokens=SEQ, plan="simple")
    assert report == torch2fpga.outline(tmp_path, tokens=SEQ, plan="simple")


def test_windows_take_no_memory_and_cannot_be_written() -> None:
    with Windows():
        layer = nn.Linear(700, 400)
        table = nn.Embedding(400, 700, padding_idx=3)
        small = nn.Linear(5, 3)
        nn.init.normal_(layer.weight, std=100.0)
    assert layer.weight.numel() > LARGE
    assert layer.weight.untyped_storage().nbytes() == 4 * (700 + 400)
    assert float(layer.weight.detach().abs().max()) < 1 and float(table.weight.detach().abs().max()) < 1
    assert len(layer.weight.detach()[0].unique()) > 600 and len(layer.weight.detach()[:, 0].unique()) > 350
    assert small.weight.is_contiguous()


def test_layers_with_and_without_a_window_are_one_loop() -> None:
    """One of each kind is built; the loop has the layers of all."""
    made = transformers.Qwen2Config(
        num_hidden_layers=3, hidden_size=24, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=HIDDEN, vocab_size=WORDS, use_sliding_window=True, sliding_window=3,
        max_window_layers=1, max_position_embeddings=24,
    )  # fmt: skip
    assert len(set(made.layer_types)) == 2
    planned, _ = outlined(made, SEQ, 1, wanted_plan("simple"), simple=True)
    design = planned.design
    assert design.steps == 3 and all("layers.0." not in s.path for s in design.stages)
    (softmax,) = (s for s in design.stages if isinstance(s, SoftmaxStage))
    assert softmax.windowed and softmax.steps == 3


def test_which_layers_are_built() -> None:
    full, window, other = "full_attention", "sliding_attention", "linear_attention"
    assert _some_of_each(None, None) == ["", ""]
    assert _some_of_each([full] * 5, None) == [full, full]
    assert _some_of_each([full, window, window], {"rope_theta": 1e4}) == [full, window]
    assert _some_of_each([full, window, window], {full: {}, window: {}}) == [full, window, window]
    assert _some_of_each([full, other, full], None) == [full, other, full]


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="24 positions; 25 tokens"):
        torch2fpga.outline(config("gpt2"), tokens=25)
    with pytest.raises(InputError, match="at least one token"):
        torch2fpga.outline(config("gpt2"), tokens=0)
    with pytest.raises(CompileError, match="precision 'w2a2'"):
        torch2fpga.outline(config("gpt2"), tokens=SEQ, precision="w2a2")
    with pytest.raises(InputError, match="expected a torch module, a Hugging Face configuration"):
        torch2fpga.outline(3, tokens=SEQ)
    mixtral = transformers.MixtralConfig(
        num_hidden_layers=3, hidden_size=24, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=40, vocab_size=WORDS, num_local_experts=4, max_position_embeddings=24,
    )  # fmt: skip
    with pytest.raises(UnsupportedModel, match=r"mlp\.gate: topk\.default"):
        torch2fpga.outline(mixtral, tokens=SEQ)


def test_weights_that_no_ports_hold() -> None:
    """As many memory channels as a layer may have are not enough for a layer's weights of all steps."""
    made = transformers.LlamaConfig(
        num_hidden_layers=4000, hidden_size=1024, num_attention_heads=8, num_key_value_heads=1,
        intermediate_size=4096, vocab_size=WORDS, max_position_embeddings=24,
    )  # fmt: skip
    with pytest.raises(
        CompileError, match=r"the weights of 4000 steps are .* GB, more than 4 memory channels"
    ):
        torch2fpga.outline(made, tokens=SEQ)


def test_int4_weights_are_advised_where_they_would_fit() -> None:
    """Weights of a layer kept in UltraRAM: half of it is enough for int4."""
    made = transformers.GPT2Config(n_embd=1024, n_layer=3, n_head=16, vocab_size=WORDS, n_positions=24)
    with pytest.raises(CompileError, match=r"42% of the .*: URAM: at least .*precision='w4a8'"):
        torch2fpga.outline(made, tokens=SEQ, budget=0.42, tile=2)
    with pytest.raises(CompileError, match="URAM: at least") as refused:
        torch2fpga.outline(made, tokens=SEQ, budget=0.2, tile=2)
    assert "precision" not in str(refused.value) and "budget=1.0" in str(refused.value)
