# SPDX-License-Identifier: Apache-2.0
"""Projects without weights and weights that are packed later: time, memory, and going on after a kill.

    python -m benchmarks.packing --json benchmarks/results/packing.json

A project of Llama-2-7B's configuration is written without weights. Then a few layers of TinyLlama-1.1B's
sizes, with random bfloat16 weights in three shards, are packed: once through, and again with a kill halfway.
Everything runs in a process of its own whose memory is watched from outside: anonymous memory is what the
program cannot give back, the rest is files that the system may drop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.common import ROOT, Results, arguments
from benchmarks.generation import LLAMA_7B

#: what a project without weights may take, and what is aimed at for one layer at a time
MOST_GB = 4.0
#: sizes of TinyLlama-1.1B
TINY_LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048,
    "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000,
    "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip
LAYERS, SHARDS, PROMPT, CONTEXT, SAMPLES = 4, 3, 16, 64, 8
#: seconds between two looks at a process
LOOK = 0.05


@dataclass
class Watched:
    """A process that has ended.

    Attributes:
        seconds: wall clock.
        anonymous, resident: largest bytes seen of its anonymous and of all its memory.
        said: last line that it printed, JSON; empty where it was killed.
    """

    seconds: float = 0.0
    anonymous: int = 0
    resident: int = 0
    said: dict[str, Any] = field(default_factory=dict)


def status(pid: int) -> dict[str, int]:
    """Bytes by the name of a line of ``/proc/<pid>/status``."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(value) * 1024 for name, value, _ in fields}


def watch(work: str, *given: str, stop: Path | None = None, after: int = 0) -> Watched:
    """Run ``work`` of this file in a process of its own.

    Args:
        stop: folder; the process is killed as soon as ``after`` layers are complete in it.
    Raises:
        RuntimeError: if it fails, or ends before it could be killed.
    """
    found, start = Watched(), time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.packing", "--child", work, *given]
    lines: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        reader = threading.Thread(target=lambda: lines.extend(child.stdout or ()), daemon=True)
        reader.start()
        killed = False
        while child.poll() is None:
            try:
                now = status(child.pid)
            except (OSError, ValueError):  # it has just ended
                break
            found.anonymous = max(found.anonymous, now.get("RssAnon", 0))
            found.resident = max(found.resident, now.get("VmHWM", 0))
            if stop is not None and complete_layers(stop) >= after:
                child.kill()
                killed = True
                break
            time.sleep(LOOK)
        child.wait()
        reader.join()
    found.seconds = time.perf_counter() - start
    if killed != (stop is not None) or (not killed and child.returncode):
        raise RuntimeError(f"{work} ended with {child.returncode}")
    if not killed:
        found.said = json.loads(lines[-1])
    return found


def complete_layers(work: Path) -> int:
    """Linear layers whose integers are in a work folder."""
    count = 0
    for path in work.glob("*.json"):
        count += '"weights of ' in path.read_text(encoding="utf-8")
    return count


# -- what runs in a process of its own ------------------------------------------------------------


def child_emit(folder: str) -> dict[str, Any]:
    """Plan Llama-2-7B and write its project without weights."""
    import transformers

    import torch2fpga

    name, settings = LLAMA_7B
    config = getattr(transformers, name)(**settings)
    start = time.perf_counter()
    torch2fpga.emit_outline(config, folder, 64, precision="w4a8", generate=True, max_length=512)
    size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    return {"seconds": time.perf_counter() - start, "bytes": size}


def child_outline(project: str, model: str) -> dict[str, Any]:
    """Write the project of the small model without weights."""
    import torch2fpga

    torch2fpga.emit_outline(
        str(Path(model) / "config.json"), project, PROMPT, precision="w4a8", generate=True, max_length=CONTEXT
    )
    return {}


def child_pack(project: str, model: str) -> dict[str, Any]:
    """Pack it."""
    import torch2fpga

    random = torch.Generator().manual_seed(5)
    words = TINY_LLAMA["vocab_size"]
    rows = [{"input_ids": torch.randint(words, (1, CONTEXT), generator=random)} for _ in range(SAMPLES)]
    phases: list[str] = []
    start = time.perf_counter()
    torch2fpga.pack(project, model, rows, progress=lambda phase, _: phases.append(phase))
    layers = len({p for p in phases if p.startswith("weights of ")})
    return {"seconds": time.perf_counter() - start, "layers": layers}


CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {
    "emit": child_emit,
    "outline": child_outline,
    "pack": child_pack,
}


# -- what watches ---------------------------------------------------------------------------------


def write_model(folder: Path, layers: int) -> int:
    """Random bfloat16 weights in shards, tensor by tensor; returns how many numbers they are."""
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {**TINY_LLAMA, "num_hidden_layers": layers}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    with torch.device("meta"):
        shapes = {n: p.shape for n, p in LlamaForCausalLM(LlamaConfig(**settings)).named_parameters()}
    random = torch.Generator().manual_seed(6)
    where: dict[str, str] = {}
    for number in range(SHARDS):
        file = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        names = list(shapes)[number::SHARDS]
        where |= dict.fromkeys(names, file)
        values = {n: torch.randn(shapes[n], generator=random).mul_(0.02).to(torch.bfloat16) for n in names}
        save_file(values, folder / file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return sum(shape.numel() for shape in shapes.values())


def emission(results: Results, console: Console) -> None:
    """Llama-2-7B's project without weights."""
    console.print("Llama-2-7B, W4A8: project without weights", highlight=False)
    with scratch() as folder:
        found = watch("emit", str(folder / "project"))
    title = "Llama-2-7B, W4A8: planning and writing its project without weights"
    results.add("emit_gb", f"{title}, peak memory",
                round(found.resident / 1e9, 2), "GB", ("<=", MOST_GB),
                note="resident, all of the process")  # fmt: skip
    note = f"{found.said['bytes'] / 1e6:.1f} MB of files; a text of 512 tokens, without imports"
    results.add("emit_seconds", title, round(found.said["seconds"], 1), "s", note=note)


def packing(results: Results, console: Console, layers: int) -> None:
    """A few layers of TinyLlama's sizes, once through and once with a kill."""
    title = f"{layers} layers of TinyLlama-1.1B's sizes, W4A8"
    console.print(title, highlight=False)
    with scratch() as folder:
        model, project, other = folder / "model", folder / "project", folder / "other"
        numbers = write_model(model, layers)
        float32 = 4 * numbers
        watch("outline", str(project), str(model))
        watch("outline", str(other), str(model))
        whole = watch("pack", str(project), str(model))
        half = whole.said["layers"] // 2
        killed = watch("pack", str(other), str(model), stop=folder / "other.work", after=half)
        done = complete_layers(folder / "other.work")
        resumed = watch("pack", str(other), str(model))
        same = all(
            (project / name).read_bytes() == (other / name).read_bytes()
            for name in ("SHA256SUMS", "manifest.json")
        )
        work = sum(p.stat().st_size for p in (folder / "project.work").iterdir())
    note = f"{numbers / 1e6:,.0f} million weights, {float32 / 1e9:.2f} GB in float32; 3 shards in bfloat16"
    results.add("pack_anonymous_gb", f"{title}: peak anonymous memory of packing",
                round(whole.anonymous / 1e9, 2), "GB", note=note)  # fmt: skip
    results.add("pack_resident_gb", f"{title}: peak resident memory, files in it",
                round(whole.resident / 1e9, 2), "GB", note="the system may drop files' part")  # fmt: skip
    results.add("pack_float_share", f"{title}: anonymous memory against the weights in float32",
                round(whole.anonymous / float32, 2), note="torch's and transformers' own in it")  # fmt: skip
    note = f"{SAMPLES} calibration texts of {CONTEXT} tokens; {whole.said['layers']} linear layers"
    results.add("pack_seconds", f"{title}: packing", round(whole.seconds), "s", note=note)
    results.add("pack_work_gb", f"{title}: work folder", round(work / 1e9, 2), "GB")
    note = f"killed after {killed.seconds:.0f} s with {done} of {whole.said['layers']} layers complete"
    results.add("resume_layers", f"{title}: layers computed again after a kill",
                resumed.said["layers"] - (whole.said["layers"] - done), "", ("==", 0), note=note)  # fmt: skip
    results.add("resume_seconds", f"{title}: the rest after the kill", round(resumed.seconds), "s")
    results.add("resume_same", f"{title}: checksums of all files as without a kill", int(same), "",
                ("==", 1))  # fmt: skip


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on disk (in /tmp, where that is memory, nothing would be gained)."""
    base = os.environ.get("TORCH2FPGA_SCRATCH")
    with tempfile.TemporaryDirectory(prefix="t2f_packing_", dir=base) as folder:
        yield Path(folder)


def main() -> int:
    """Run what was asked for."""
    parser = arguments(__doc__)
    parser.add_argument("--only", choices=("emission", "packing"), help="one part; the other is kept")
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the model that is packed")
    parser.add_argument("--child", nargs="+", help="(used by itself)")
    options = parser.parse_args()
    if options.child:
        work, *given = options.child
        print(json.dumps(CHILDREN[work](*given)))
        return 0
    console, results = Console(), Results("packing")
    if options.only != "packing":
        emission(results, console)
    if options.only != "emission":
        packing(results, console, options.layers)
    if options.only is not None and options.json is not None:
        results.keep(options.json)
    return results.finish(console, options.json)


if __name__ == "__main__":
    raise SystemExit(main())
