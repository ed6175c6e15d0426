# SPDX-License-Identifier: Apache-2.0
"""Draw the pictures of the documents.

python -m scripts.pictures            # writes docs/pictures/*.svg
python -m scripts.pictures --check    # says whether they are up to date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
WIDTH, HEIGHT = 960, 520
LEFT = 24

#: (folder or module, what it does, what comes out)
STAGES = (
    ("capture.py", ("torch.export,", "ATen operators"), "ATen graph"),
    ("passes/", ("fold, recognise,", "canonicalise"), "canonical graph"),
    ("roll.py", ("repeated blocks", "become a loop"), "layer loop"),
    ("quantise.py", ("calibrate, then", "formats by role"), "integer formats"),
    ("lower/", ("one operator,", "one file"), "stages, streams"),
    ("plan/", ("cut into kernels,", "size FIFOs"), "design"),
    ("emit/", ("HLS C++, link,", "weights, tests"), "Vitis project"),
)
RUNGS = (
    ("PyTorch float", "the user's model"),
    ("quantised reference", "integers in PyTorch"),
    ("functional run", "the emitted C++, g++"),
    ("timed run", "the same, with clocks"),
    ("emulated card", "planned"),
)
KERNELS = (
    ("kernel 0, SLR0", "embedding, loop enter, q k v"),
    ("kernel 1, SLR1", "attention, projection, norm"),
    ("kernel 2, SLR2", "feed-forward, norm, loop exit"),
)
STYLE = """
    .paper { fill: #ffffff; } .box { fill: #eef3f8; stroke: #5b7083; } .later { fill: none; stroke: #8a98a5; }
    text { font: 13px system-ui, sans-serif; fill: #17212b; } .small { font-size: 11.5px; fill: #4a5a68; }
    .head { font-weight: 600; } .rung { font: 600 12px system-ui, sans-serif; }
    .mono { font: 600 12px ui-monospace, monospace; }
    .line { fill: none; stroke: #5b7083; stroke-width: 1.5; } .tip { fill: #5b7083; }
    .mark { fill: #0b6e4f; font-weight: 600; font-size: 12px; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #12181e; } .box { fill: #1f2a34; stroke: #8fa3b5; } .later { stroke: #6d7d8b; }
      text { fill: #e6edf3; } .small { fill: #a9b8c5; } .line { stroke: #8fa3b5; } .tip { fill: #8fa3b5; }
      .mark { fill: #5fd3a6; }
    }
"""


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'  <text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{style}>{text}</text>'


def _box(x: float, y: float, width: float, height: float, kind: str = "box") -> str:
    dashes = ' stroke-dasharray="5 4"' if kind == "later" else ""
    size = f'width="{width:g}" height="{height:g}"'
    return f'  <rect x="{x:g}" y="{y:g}" {size} rx="6" class="{kind}"{dashes}/>'


def _arrow(*points: tuple[float, float]) -> str:
    path = " L ".join(f"{x:g} {y:g}" for x, y in points)
    return f'  <path d="M {path}" class="line" marker-end="url(#tip)"/>'


def _compilation() -> list[str]:
    out = [_text(LEFT, 34, "Compilation", "head", "start")]
    step = (WIDTH - 2 * LEFT) / len(STAGES)
    width = step - 16
    for i, (name, lines, result) in enumerate(STAGES):
        x = LEFT + i * step
        middle = x + width / 2
        out += [_box(x, 50, width, 76), _text(middle, 71, name, "mono")]
        out += [_text(middle, 91 + 16 * j, line, "small") for j, line in enumerate(lines)]
        out += [_arrow((middle, 126), (middle, 146)), _text(middle, 163, result)]
        if i + 1 < len(STAGES):
            out.append(_arrow((x + width, 88), (x + step - 1, 88)))
    return out


def _ladder() -> list[str]:
    out = [_text(LEFT, 212, "Exactness ladder", "head", "start")]
    step = (WIDTH - 2 * LEFT + 36) / len(RUNGS)
    width = step - 36
    marks = ("~", "=", "=", "=")
    for i, (name, what) in enumerate(RUNGS):
        x = LEFT + i * step
        out += [_box(x, 228, width, 54, "later" if what == "planned" else "box")]
        out += [_text(x + width / 2, 251, name, "rung"), _text(x + width / 2, 269, what, "small")]
        if i < len(marks):
            out.append(_text(x + width + 18, 260, marks[i], "mark"))
    first, second = LEFT + width + 18, LEFT + step + width + 18
    out.append(_text(first, 304, "measured", "mark"))
    return [*out, _text(second, 304, "every stream, bit for bit", "mark")]


def _card() -> list[str]:
    out = [_text(LEFT, 350, "On the card", "head", "start")]
    step = (WIDTH - 2 * LEFT + 60) / len(KERNELS)
    width, top = step - 60, 368
    for i, (name, what) in enumerate(KERNELS):
        x = LEFT + i * step
        middle = x + width / 2
        out += [_box(x, top, width, 58), _text(middle, top + 24, name, "head")]
        out.append(_text(middle, top + 44, what, "small"))
        if i + 1 < len(KERNELS):
            out.append(_arrow((x + width, top + 29), (x + step - 1, top + 29)))
            out.append(_text(x + width + 29, top + 20, "AXIS", "small"))
    first, last, below = LEFT + width / 2, LEFT + 2 * step + width / 2, top + 96
    out.append(_arrow((last, top + 58), (last, below), (first, below), (first, top + 59)))
    loop = "the next layer: rows return over an AXI stream; weights and scales are data of the step"
    return [*out, _text(WIDTH / 2, below + 20, loop, "small")]


def pipeline() -> str:
    """The way of a model to a project."""
    tip = '<path d="M 0 0 L 8 4 L 0 8 z" class="tip"/>'
    head = [
        "<!-- SPDX-License-Identifier: Apache-2.0; written by python -m scripts.pictures -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' aria-label="Compilation, exactness ladder and kernels">',
        f"  <style>{STYLE}  </style>",
        '  <defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        f' orient="auto">{tip}</marker></defs>',
        f'  <rect width="{WIDTH}" height="{HEIGHT}" rx="8" class="paper"/>',
    ]
    return "\n".join([*head, *_compilation(), *_ladder(), *_card(), "</svg>", ""])


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 if ``--check`` finds an old picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; 1 if a picture is old")
    check = parser.parse_args(arguments).check
    old = []
    for name, text in {"pipeline.svg": pipeline()}.items():
        path = PICTURES / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        old.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if check and old:
        print(f"old pictures: {', '.join(old)}; run: python -m scripts.pictures", file=sys.stderr)
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
