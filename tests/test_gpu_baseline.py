# SPDX-License-Identifier: Apache-2.0
"""The GPU baseline, tried with tiny models on the CPU; NVML is made up."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_baseline, gpu_device, gpu_models, gpu_steps, gpu_weights
from benchmarks.gpu_device import Device, NoGpu, NotMeasured
from benchmarks.gpu_models import MODELS
from benchmarks.gpu_steps import WAYS, Runner

pytestmark = pytest.mark.hf
CPU = torch.device("cpu")
TRY = ["--device", "cpu", "--dtype", "float32", "--backend", "aot_eager", "--steps", "7"]


def tiny(key: str) -> torch.nn.Module:
    return MODELS[key].build(CPU, torch.float32)


def ids(tokens: int) -> torch.Tensor:
    return torch.randint(97, (1, tokens), generator=torch.Generator().manual_seed(3))


class Nvml(types.ModuleType):
    """NVML of a made-up GPU, 100 J used between two readings; functions in ``refused`` raise."""

    class NVMLError(Exception):
        pass

    def __init__(self, *refused: str) -> None:
        super().__init__("pynvml")
        self.refused, self.joules = refused, 0

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def answer(*arguments: Any) -> Any:
            handled = name.startswith("nvmlDevice") and name != "nvmlDeviceGetHandleByUUID"
            assert (arguments[:1] == ("handle",)) == handled, f"{name} of {arguments}"
            if name in self.refused:
                raise self.NVMLError("Not Supported")
            if name == "nvmlDeviceGetTotalEnergyConsumption":
                self.joules += 100
                return 1000 * self.joules
            table = {"nvmlInit": None, "nvmlDeviceGetMemoryBusWidth": 5120,
                     "nvmlDeviceGetMaxClockInfo": 1215, "nvmlSystemGetDriverVersion": "999.1",
                     "nvmlDeviceGetHandleByUUID": "handle"}  # fmt: skip
            return table[name]

        return answer


@pytest.fixture
def with_nvml(monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())
    device = Device("cpu")
    device.nvml = gpu_device.Nvml("0")
    return device


@pytest.mark.slow
def test_figures_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu_baseline.json"
    models = ["--models", "tiny-gpt2", "tiny-bert", "--ways", "eager", "compiled"]
    assert (
        gpu_baseline.main([*TRY, *models, "--prefill", "8", "99", "--context", "20", "--json", str(path)])
        == 0
    )
    data = json.loads(path.read_text())
    figures = data["figures"]
    latencies = {k for k in figures if k.endswith("_ms")}
    assert latencies == {f"tiny_gpt2_{way}_{what}_ms" for way in ("eager", "compiled")
                         for what in ("prefill8", "decode20")} | {
        f"tiny_bert_{way}_prefill16_ms" for way in ("eager", "compiled")}  # fmt: skip
    assert all(figures[k]["value"] > 0 and "median of 7 steps" in figures[k]["note"] for k in latencies)
    assert all(f["obtained"] == "measured here" for f in figures.values())
    decode = figures["tiny_gpt2_compiled_decode20_ms"]["value"]
    assert figures["tiny_gpt2_compiled_decode20_rate"]["value"] == pytest.approx(1000 / decode)
    assert figures["tiny_gpt2_compiled_decode20_share"]["value"] > 0
    assert figures["tiny_gpt2_compiled_decode20_same"]["value"] == 16
    assert data["not_run"]["tiny_gpt2_eager_prefill99"] == "the model has 64 positions"
    assert "not measured" in data["not_run"]["energy"] and "not known" in data["not_run"]["peak_gbs"]
    assert data["benchmark"] == "gpu_baseline" and re.fullmatch(r"\d{4}-\d\d-\d\d", data["date"])
    assert data["versions"]["torch"] == torch.__version__ and data["versions"]["transformers"]
    assert "CPU" in data["device"]["name"] and data["machine"]["class"].startswith(data["device"]["name"])
    assert "tiny_gpt2_eager_prefill99: not run: the model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "way"),
    [
        ("tiny-gpt2", "compiled"),
        ("tiny-llama", "compiled"),
        ("tiny-opt", "compiled"),
        ("tiny-gpt2", "int8"),
        ("tiny-llama", "int4"),
    ],
)
def test_a_static_cache_gives_the_tokens_of_eager(key: str, way: str) -> None:
    runner = Runner(tiny(key), WAYS[way], torch.float32, "aot_eager")
    prompt = ids(40)
    with runner.fresh():
        decoder, plain = runner.decode(prompt), runner.decode_as_it_is(prompt)
        want = plain.greedy(16)
        assert decoder.greedy(16) == want and len(set(want)) > 3
        call, other = decoder.call(), plain.call()
        for _ in range(2):  # the second time gives the same: all is put back
            call.prepare(), other.prepare()
            assert int(call.run()) == int(other.run())
        prefill, plain_prefill = runner.prompt(prompt), gpu_steps.first_token(runner.model, prompt)
        for _ in range(2):
            prefill.prepare()
            assert int(prefill.run()) == int(plain_prefill)


@pytest.mark.gxx
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_inductor_compiles_a_step() -> None:
    runner = Runner(tiny("tiny-gpt2"), WAYS["compiled"], torch.float32)
    with runner.fresh():
        assert runner.decode(ids(20)).greedy(8) == runner.decode_as_it_is(ids(20)).greedy(8)
    assert runner.graphs() == "no CUDA graphs on the cpu, backend inductor"


def test_a_step_attends_to_all_positions_asked_for() -> None:
    runner = Runner(tiny("tiny-llama"), WAYS["eager"], torch.float32)
    with runner.fresh():
        decoder = runner.decode(ids(20))
        call = decoder.call()
        call.prepare()
        assert decoder.cache.get_seq_length() == 19
        call.run()
        assert decoder.cache.get_seq_length() == 20


def test_a_median_is_one_of_the_steps_asked_for() -> None:
    calls: list[str] = []
    times = Device("cpu").milliseconds(lambda: calls.append("run"), lambda: calls.append("prepare"), 5, 2)
    assert len(times) == 5 and calls == ["prepare", "run"] * 7


@pytest.mark.parametrize("kernel", ["packed", "widened"])
def test_int8_is_the_matrix_within_half_a_step(kernel: str) -> None:
    weight, x = torch.randn(24, 64), torch.randn(2, 3, 64)
    layer = gpu_weights.Int8Linear(weight, torch.ones(24), kernel)
    whole = layer.get_buffer("weight") * layer.get_buffer("scale")[:, None]
    assert float((whole - weight).abs().max()) <= float(layer.get_buffer("scale").max()) / 2 + 1e-6
    torch.testing.assert_close(layer(x), x @ whole.T + 1, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", ["cpu", "widened"])
def test_int4_is_the_matrix_within_half_a_step(kernel: str) -> None:
    weight, x = torch.randn(25, 128), torch.randn(2, 3, 128)  # 25 outputs: no kernel takes them unpadded
    q, scale, zero = gpu_weights.int4_groups(weight, 32)
    assert int(q.min()) == 0 and int(q.max()) == 15
    whole = ((q.unflatten(1, (-1, 32)).float() - 8) * scale[..., None] + zero[..., None]).flatten(1)
    assert float((whole - weight).abs().max()) <= float(scale.max()) / 2 + 1e-5
    layer = gpu_weights.Int4Linear(weight, torch.ones(25), kernel, 32)
    torch.testing.assert_close(layer(x), x @ whole.T + 1, rtol=1e-3, atol=1e-3)


def test_an_int4_kernel_that_is_missing_or_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_weights.kernel_for(4, CPU, torch.float32) == ("cpu", "aten._weight_int4pack_mm_for_cpu")

    def missing(*_: Any) -> Any:
        raise RuntimeError("not for sm_75\nmore")

    def wrong(x: torch.Tensor, packed: torch.Tensor, *_: Any) -> torch.Tensor:
        return x.new_zeros(len(x), packed.shape[0])

    for stand_in, said in ((missing, "not run: not for sm_75"), (wrong, "not run: off by 100%")):
        names = ("_weight_int4pack_mm_for_cpu", "_convert_weight_to_int4pack_for_cpu")
        real = {name: getattr(torch.ops.aten, name) for name in names}
        fake = types.SimpleNamespace(**{**real, names[0]: stand_in})
        monkeypatch.setattr(gpu_weights, "aten", fake)
        kernel, note = gpu_weights.kernel_for(4, CPU, torch.float32)
        assert kernel == "widened" and said in note and note.startswith("int4 weights widened")


def test_matrices_that_no_group_divides_stay_and_are_said() -> None:
    model = MODELS["tiny-gpt2"].build(CPU, torch.float32)
    model.lm_head = torch.nn.Linear(48, 5, bias=False)
    found = gpu_weights.quantise_weights(model, 4, torch.float32)
    assert found.kept == ("lm_head",) and found.layers == 8
    assert "1 matrices stay as they are" in found.note


def test_bytes_of_a_step_are_counted() -> None:
    model = tiny("tiny-gpt2")  # tied: the table is read as the head; of the positions one row
    layer = 12 * 64 * 64 + 13 * 64
    assert gpu_models.weight_bytes(model) == 4 * (2 * layer + 97 * 64 + 64 + 2 * 64)
    llama = MODELS["tiny-llama"].configuration()
    assert gpu_models.kv_bytes(llama, 10, 2) == 2 * 2 * 2 * 16 * 10 * 2
    assert gpu_models.kv_bytes(MODELS["gpt2"].configuration(), 1, 2) == 2 * 12 * 768 * 2


@pytest.mark.parametrize("model", [m for m in MODELS.values() if m.parameters], ids=lambda m: m.key)
def test_configurations_are_the_published_ones(model: gpu_models.Model) -> None:
    from torch2fpga.plan.meta_model import meta_model

    assert sum(p.numel() for p in meta_model(model.configuration())[0].parameters()) == model.parameters


def test_without_a_gpu_it_says_what_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_baseline.main([]) == 2
    error = capsys.readouterr().err
    for part in (
        "no CUDA GPU found",
        "torch.cuda.is_available()",
        torch.__version__,
        "driver",
        "--device cpu",
    ):
        assert part in error
    with pytest.raises(NoGpu):
        Device("cuda:0")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--steps", "99"], "over 100 steps or more"),
        (["--energy-seconds", "2"], "needs 5 s or more"),
        (["--models", "gpt-7"], "invalid choice"),
        (["--context", "1"], "2 tokens or more"),
    ],
)
def test_too_little_is_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu_baseline.main(options)
    assert said in capsys.readouterr().err


def test_energy_is_the_counter_over_the_calls(with_nvml: Device) -> None:
    used = with_nvml.energy(lambda: None, lambda: None, 0.02)
    assert used.calls > 1 and used.seconds >= 0.02
    assert used.millijoules == pytest.approx(100_000 / used.calls)
    assert used.watts == pytest.approx(100 / used.seconds)


def test_peak_bandwidth_is_clock_times_width(with_nvml: Device) -> None:
    assert with_nvml.peak_bandwidth().gbs == pytest.approx(1555.2)  # an A100 of 40 GB: 1,555 GB/s published
    assert "NVML" in with_nvml.peak_bandwidth().how


class Event:
    """CUDA events of a made-up GPU: each record is a millisecond behind the one before."""

    now = 0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.now += 1
        self.at = Event.now

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: Event) -> float:
        return float(other.at - self.at)


@pytest.fixture
def made_up_gpu(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """torch.cuda as on a machine with one GPU; the devices that were made current."""
    current: list[torch.device] = []
    properties = types.SimpleNamespace(name="GPU X", uuid="1-2", total_memory=24e9, multi_processor_count=7,
                                       memory_clock_rate=1_215_000, memory_bus_width=5120)  # fmt: skip
    answers = {"is_available": lambda: True, "device_count": lambda: 1, "set_device": current.append,
               "get_device_properties": lambda device: properties, "synchronize": lambda device: None,
               "get_device_capability": lambda device: (8, 0), "Event": Event}  # fmt: skip
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return current


def test_a_gpu_is_found_and_described(
    made_up_gpu: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml("nvmlDeviceGetPowerManagementLimit"))
    device = Device("cuda")
    assert made_up_gpu == [torch.device("cuda", 0)]
    details = device.details()
    assert (
        details["name"] == "GPU X" and details["compute_capability"] == "8.0" and details["memory_gb"] == 24
    )
    assert details["driver"] == "999.1" and details["memory_clock_mhz_max"] == 1215
    assert "Not Supported" in details["power_limit_mw"]
    times = device.milliseconds(lambda: Event(enable_timing=True).record(), lambda: None, 3, 0)
    assert times == [2.0, 2.0, 2.0]  # between the events of the call's begin and end lies its own
    with pytest.raises(NoGpu, match="torch sees 1 CUDA devices"):
        Device("cuda:1")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    without = Device("cuda")
    assert "nvidia-ml-py" in without.details()["nvml"]
    assert without.peak_bandwidth().gbs == pytest.approx(1555.2) and "CUDA" in without.peak_bandwidth().how


def test_what_nvml_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NotMeasured, match="pip install nvidia-ml-py"):
        gpu_device.Nvml("0")
    monkeypatch.setitem(sys.modules, "pynvml", Nvml("nvmlDeviceGetTotalEnergyConsumption"))
    device = Device("cpu")
    with pytest.raises(NotMeasured, match="not a GPU"):
        device.energy(lambda: None, lambda: None, 0.01)
    device.nvml = gpu_device.Nvml("0")
    with pytest.raises(NotMeasured, match="nvmlDeviceGetTotalEnergyConsumption: Not Supported"):
        device.energy(lambda: None, lambda: None, 0.01)


def test_a_failure_is_listed_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Any, prompt: torch.Tensor) -> Any:
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(Runner, "prompt", broken)
    options = ["--models", "tiny-llama", "--ways", "eager", "--prefill", "8", "--context", "9"]
    assert gpu_baseline.main([*TRY, *options]) == 0
    assert "tiny_llama_eager_prefill8: not run: RuntimeError: out of memory" in capsys.readouterr().out
    assert gpu_baseline.main([*TRY, *options[:-2], "--context"]) == 1
    assert "no latency was measured" in capsys.readouterr().out


def test_figures_follow_from_the_times(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Device, "milliseconds", lambda *_, **__: [9.0, 1.0, 2.0])
    used = gpu_device.Energy(70.0, 35.0, 5.5, 11)
    monkeypatch.setattr(Device, "energy", lambda *_: used)
    peak = gpu_device.Bandwidth(0.5, "modelled", "made up")
    monkeypatch.setattr(Device, "peak_bandwidth", lambda *_: peak)
    path = tmp_path / "out.json"
    options = [
        "--models",
        "tiny-llama",
        "--ways",
        "eager",
        "--prefill",
        "--context",
        "20",
        "--json",
        str(path),
    ]
    assert gpu_baseline.main([*TRY, *options]) == 0
    figures = json.loads(path.read_text())["figures"]
    key = "tiny_llama_eager_decode20"
    assert figures[f"{key}_ms"]["value"] == 2.0 and figures[f"{key}_rate"]["value"] == 500.0
    model = tiny("tiny-llama")
    moved = gpu_models.weight_bytes(model) + gpu_models.kv_bytes(model.config, 20, 4)
    assert figures[f"{key}_share"]["value"] == pytest.approx(100 * moved / 0.002 / 0.5e9)
    assert figures["peak_gbs"]["obtained"] == "modelled"
    assert (
        figures[f"{key}_mj"]["value"] == 70.0 and "35 W over 5.5 s, 11 calls" in figures[f"{key}_mj"]["note"]
    )


@pytest.mark.gpu
def test_a_gpu_gives_latency_and_share(tmp_path: Path) -> None:
    path = tmp_path / "gpu_baseline.json"
    options = [
        "--models",
        "tiny-llama",
        "--prefill",
        "8",
        "--context",
        "20",
        "--steps",
        "100",
        "--json",
        str(path),
    ]
    assert gpu_baseline.main(options) == 0
    data = json.loads(path.read_text())
    for way in WAYS:
        assert data["figures"][f"tiny_llama_{way}_decode20_ms"]["value"] > 0, data["not_run"]
    assert "; CUDA graphs;" in data["figures"]["tiny_llama_compiled_decode20_ms"]["note"]
