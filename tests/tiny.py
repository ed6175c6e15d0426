# SPDX-License-Identifier: Apache-2.0
"""Small models with all dimensions different, and how tests compile them.

Batch 2, seq 5, heads 3, head size 7, channels 21 and 40: nothing is a multiple of the lanes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torch2fpga
from torch2fpga.capture import Captured, capture, split_inputs
from torch2fpga.compiled import CompiledModel
from torch2fpga.compiler import _shaped, canonical_passes
from torch2fpga.passes.manager import PassManager
from torch2fpga.samples import canonical_inputs

Inputs = tuple[Tensor, ...] | dict[str, Tensor]
BATCH, SEQ, HEADS, WIDTH, HIDDEN, WORDS = 2, 5, 3, 21, 40, 100
LONG = 19


@pytest.fixture(scope="session", autouse=True)
def cxx_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled libraries are shared by all tests (and test processes) of a session."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        if "TORCH2FPGA_CACHE" not in os.environ:
            patch.setenv("TORCH2FPGA_CACHE", str(shared / "cxx"))
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Random weights are the same in every run, whatever ran before."""
    torch.manual_seed(0)


def ids(batch: int = BATCH, seq: int = SEQ) -> Tensor:
    """Token ids, all different."""
    return (torch.arange(batch * seq) * 37 % WORDS).reshape(batch, seq)


def padding(batch: int = BATCH, seq: int = SEQ) -> Tensor:
    """A mask: the last sequence is two tokens shorter."""
    mask = torch.ones(batch, seq, dtype=torch.int64)
    mask[-1, max(1, seq - 2) :] = 0
    return mask


def rows(*shape: int) -> Tensor:
    """Normal values, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def bert(layers: int = 2, **options: Any) -> nn.Module:
    """A tiny BertModel."""
    from transformers import BertConfig, BertModel

    sizes = {"vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": layers,
             "num_attention_heads": HEADS, "intermediate_size": HIDDEN,
             "max_position_embeddings": 64}  # fmt: skip
    return BertModel(BertConfig(**{**sizes, **options}))


def gpt2(layers: int = 2, **options: Any) -> nn.Module:
    """A tiny GPT2LMHeadModel (word table and head are tied)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": WORDS, "n_embd": WIDTH, "n_layer": layers, "n_head": HEADS, "n_positions": 64,
             "bos_token_id": 0, "eos_token_id": 0}  # fmt: skip
    return GPT2LMHeadModel(GPT2Config(**{**sizes, **options}))


#: heads of queries, heads of keys and values, their size and the residual of the models that rotate
Q_HEADS, KV_HEADS, HEAD, RESIDUAL = 6, 3, 14, 42


def rotating(family: str, layers: int = 2, head: bool = True, **options: Any) -> nn.Module:
    """A tiny model of transformers' families Llama, Qwen2, Qwen3 or Mistral, with or without its head.

    Grouped heads whose size times their number is not the residual's width.
    """
    import transformers

    sizes = {"vocab_size": WORDS, "hidden_size": RESIDUAL, "num_hidden_layers": layers,
             "intermediate_size": HIDDEN, "num_attention_heads": Q_HEADS, "num_key_value_heads": KV_HEADS,
             "head_dim": HEAD, "max_position_embeddings": 64}  # fmt: skip
    config = getattr(transformers, f"{family}Config")(**{**sizes, **options})
    return getattr(transformers, f"{family}{'ForCausalLM' if head else 'Model'}")(config)


#: Llama 3's stretched positions, for so few of them that some frequencies change
SCALED_POSITIONS = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # fmt: skip


def opt(layers: int = 2, **options: Any) -> nn.Module:
    """A tiny OPTForCausalLM."""
    from transformers import OPTConfig, OPTForCausalLM

    sizes = {"vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": layers, "ffn_dim": HIDDEN,
             "num_attention_heads": HEADS, "max_position_embeddings": 64, "word_embed_proj_dim": WIDTH,
             "pad_token_id": 1}  # fmt: skip
    return OPTForCausalLM(OPTConfig(**{**sizes, **options}))


def distilbert(**options: Any) -> nn.Module:
    """A tiny DistilBertModel."""
    from transformers import DistilBertConfig, DistilBertModel

    return DistilBertModel(
        DistilBertConfig(vocab_size=WORDS, dim=WIDTH, n_layers=2, n_heads=HEADS, hidden_dim=HIDDEN, **options)
    )


def encoder(layers: int = 2, **options: Any) -> nn.Module:
    """A tiny nn.TransformerEncoder."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, **options)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def mlp() -> nn.Module:
    """Three linears, GELU and tanh between them; one without bias."""
    return nn.Sequential(
        nn.Linear(10, WIDTH),
        nn.GELU(),
        nn.Linear(WIDTH, HIDDEN, bias=False),
        nn.Tanh(),
        nn.Linear(HIDDEN, 13),
    )


def _with_mask(*extra: str, seq: int = SEQ) -> dict[str, Tensor]:
    found = {"input_ids": ids(seq=seq), "attention_mask": padding(seq=seq)}
    if "types" in extra:
        found["token_type_ids"] = ids() % 2
    return found


#: name -> model and inputs
MODELS: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "mlp2d": lambda: (nn.Sequential(nn.Linear(10, 17), nn.ReLU(), nn.Linear(17, 5)), (rows(3, 10),)),
    "mlp3d": lambda: (mlp(), (rows(BATCH, SEQ, 10),)),
    "bert": lambda: (bert(), _with_mask()),
    "bert_eager": lambda: (bert(attn_implementation="eager"), _with_mask()),
    "bert_plain": lambda: (bert(), {"input_ids": ids()}),
    "bert_types": lambda: (bert(), _with_mask("types")),
    "bert_long": lambda: (bert(), _with_mask(seq=LONG)),
    "gpt2": lambda: (gpt2(), {"input_ids": ids()}),
    "gpt2_long": lambda: (gpt2(), {"input_ids": ids(seq=LONG)}),
    "gpt2_mask": lambda: (gpt2(), _with_mask()),
    "gpt2_eager": lambda: (gpt2(attn_implementation="eager"), {"input_ids": ids()}),
    "gpt2_eager_mask": lambda: (gpt2(attn_implementation="eager"), _with_mask()),
    "llama": lambda: (rotating("Llama"), {"input_ids": ids()}),
    "llama_mask": lambda: (rotating("Llama", num_key_value_heads=1), _with_mask()),
    "llama_eager": lambda: (rotating("Llama", attn_implementation="eager"), {"input_ids": ids()}),
    "llama_long": lambda: (rotating("Llama", rope_parameters=SCALED_POSITIONS), {"input_ids": ids(seq=LONG)}),
    "llama_body": lambda: (rotating("Llama", head=False), _with_mask()),
    "llama_tied": lambda: (rotating("Llama", tie_word_embeddings=True), {"input_ids": ids()}),
    "qwen2": lambda: (rotating("Qwen2"), {"input_ids": ids()}),
    "qwen3": lambda: (rotating("Qwen3"), {"input_ids": ids()}),
    "qwen3_long": lambda: (rotating("Qwen3", num_key_value_heads=2), {"input_ids": ids(seq=LONG)}),
    "mistral": lambda: (rotating("Mistral", sliding_window=3), {"input_ids": ids()}),
    "mistral_long": lambda: (rotating("Mistral", sliding_window=7), _with_mask(seq=LONG)),
    "opt": lambda: (opt(), {"input_ids": ids()}),
    "distilbert": lambda: (distilbert(), _with_mask()),
    "distilbert_eager": lambda: (distilbert(attn_implementation="eager"), _with_mask()),
    "encoder": lambda: (encoder(batch_first=True), (rows(BATCH, SEQ, WIDTH),)),
    "encoder_gelu": lambda: (encoder(batch_first=True, activation="gelu"), (rows(BATCH, SEQ, WIDTH),)),
    "encoder_pre": lambda: (encoder(batch_first=True, norm_first=True), (rows(BATCH, SEQ, WIDTH),)),
    "encoder_swapped": lambda: (encoder(), (rows(SEQ, BATCH, WIDTH),)),
    "encoder_swapped_pre": lambda: (encoder(norm_first=True, activation="gelu"), (rows(SEQ, BATCH, WIDTH),)),
}
HF = tuple(n for n in MODELS if n.startswith(("bert", "gpt2", "distil", "llama", "qwen", "mistral", "opt")))


def named(*names: str) -> list[Any]:
    """Pytest parameters; models of transformers carry their marker."""
    return [pytest.param(n, marks=pytest.mark.hf) if n in HF else n for n in names]


def build(name: str) -> tuple[nn.Module, Inputs]:
    """A model of ``MODELS`` in eval mode with its inputs; the same weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = MODELS[name]()
        for parameter in model.parameters():  # biases and norms are not 0 and 1
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval(), inputs


def calibration(inputs: Inputs, count: int = 8) -> list[Inputs]:
    """The given inputs and others like them: ids shuffled, floats drawn again, masks kept."""
    generator = torch.Generator().manual_seed(2)
    labels, tensors = split_inputs(inputs)
    found: list[Inputs] = [inputs][:count]
    for _ in range(count - 1):
        drawn = []
        for label, value in zip(labels or [""] * len(tensors), tensors, strict=True):
            if value.is_floating_point():
                drawn.append(torch.randn(value.shape, generator=generator) * value.std(correction=0))
            elif "mask" in label:
                drawn.append(value)
            else:
                order = torch.randperm(value.numel(), generator=generator)
                drawn.append(value.reshape(-1)[order].reshape(value.shape))
        found.append(dict(zip(labels, drawn, strict=True)) if labels else tuple(drawn))
    return found


def compile_model(model: nn.Module, inputs: Inputs, **options: Any) -> CompiledModel:
    """``torch2fpga.compile`` with eight calibration inputs; without optimiser, if no plan is given."""
    options.setdefault("calibration", calibration(inputs))
    options.setdefault("plan", "simple")
    return torch2fpga.compile(model.eval(), inputs, **{"lanes": 8, "tile": 4, **options})


@lru_cache
def compiled(name: str, lanes: int = 8, tile: int = 4) -> CompiledModel:
    """A model of ``MODELS``, compiled once a process."""
    return compile_model(*build(name), lanes=lanes, tile=tile)


def arguments(inputs: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Positional and keyword arguments of a call."""
    return (inputs, {}) if isinstance(inputs, tuple) else ((), dict(inputs))


def run(call: Callable[..., Any], inputs: Inputs) -> Any:
    """``call`` on the inputs."""
    args, kwargs = arguments(inputs)
    return call(*args, **kwargs)


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors of a model's output."""
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if hasattr(output, "values") else output
    return [v for v in values if isinstance(v, Tensor)]


def same(a: Any, b: Any) -> bool:
    """Are all tensors of two outputs equal, bit for bit?"""
    pairs = zip(tensors_of(a), tensors_of(b), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def exact(model: CompiledModel, inputs: Inputs, cosine: float | None = 0.999) -> None:
    """Every stage bit for bit; every output close to float where a bound is given."""
    report = run(model.verify, inputs)
    wrong = [s.name for s in report.stages if not s.equal]
    assert report.bit_exact and not wrong, f"stages differ: {wrong}"
    assert sum(s.compared for s in report.stages) > 0
    if cosine is not None:
        assert min(report.outputs) >= cosine, f"cosine {report.outputs} below {cosine}"


def lowered(model: nn.Module, inputs: Inputs) -> tuple[torch.fx.GraphModule, Captured]:
    """The canonical graph, all passes run, and what was captured."""
    captured = capture(model.eval(), inputs)
    return PassManager(canonical_passes(captured), given=("functional",)).run(captured.module), captured


def float_error(model: nn.Module, inputs: Inputs) -> float:
    """Largest difference of the canonical graph to the model, relative to the largest output."""
    module, captured = lowered(model, inputs)
    found = canonical_inputs(module, captured.example)
    with torch.no_grad():
        results = module(*[found[str(n.target)] for n in module.graph.nodes if n.op == "placeholder"])
    errors = []
    for got, want, view in zip(results, captured.expected, module.meta["output_views"], strict=True):
        assert _shaped(got, view).shape == want.shape
        errors.append(float((_shaped(got, view) - want).abs().max() / want.abs().max().clamp(min=1e-6)))
    return max(errors)


def histogram(graph: torch.fx.Graph) -> dict[str, int]:
    """How often each function is called."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_function":
            name = getattr(node.target, "__name__", str(node.target))
            found[name] = found.get(name, 0) + 1
    return found


def refusals(model: nn.Module, inputs: Inputs) -> tuple[torch2fpga.Refusal, ...]:
    """What ``explain`` refuses; at least one thing."""
    explanation = torch2fpga.explain(model.eval(), inputs)
    assert not explanation.ok and explanation.refusals
    return explanation.refusals


def refused(model: nn.Module, inputs: Inputs, path: str, reason: str) -> None:
    """``compile`` refuses one node, at this module path, with these words in its text."""
    with pytest.raises(torch2fpga.UnsupportedModel) as error:
        torch2fpga.compile(model.eval(), inputs)
    (found,) = error.value.refusals
    assert found.path == path and found.target and found.node
    assert reason in str(found) and str(found) in str(error.value)


class Inside(nn.Module):
    """A function as the forward of a sub-module called ``part``, between two linears."""

    def __init__(self, function: Callable[..., Tensor], width: int = WIDTH) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.part = _Function(function)

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.first(x))


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
