# SPDX-License-Identifier: Apache-2.0
"""The xclbin without bitstream, as the real XRT library reads it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.card.cards import Card
from tests.tiny import compiled
from torch2fpga.boards import U280
from torch2fpga.emit.kernel import arguments
from torch2fpga.emit.link import channels
from torch2fpga.emit.xclbin import FORMAT, kernel_arguments, xclbin
from torch2fpga.errors import CompileError


def described(card: Card) -> tuple[str, dict[str, list[list[str]]], list[list[str]], dict[str, Any]]:
    """(platform, kernel -> its arguments, memories, the section of our own) as XRT tells them."""
    answer = card.run([f"describe {card.xclbin}"]).of("describe").removeprefix("ok ")
    platform, *kernels, memories, own = answer.split("|")
    found = {}
    for text in kernels:
        name, *rest = text.split(";")
        found[name] = [x.split(",") for x in rest]
    banks = [m.split(",") for m in memories.split(";") if m]
    return platform, found, banks, json.loads(own)


@pytest.mark.xrt
@pytest.mark.gxx
@pytest.mark.hf
def test_xrt_reads_kernels_arguments_and_banks(generating: Card) -> None:
    platform, kernels, banks, own = described(generating)
    manifest = generating.manifest
    assert platform == manifest["platform"]
    assert list(kernels) == generating.kernels
    assert len(kernels) == 3  # joined by streams, or this tests little
    for kernel in manifest["kernels"]:
        found = kernels[kernel["name"]]
        ports = [p for p in manifest["ports"] if p["kernel"] == kernel["name"]]
        names = [p["argument"] for p in ports] + kernel["axis_in"] + kernel["axis_out"]
        assert [a[1] for a in found] == [*names, "batch", "seq", "past", "turns"]
        assert [a[0] for a in found] == [str(i) for i in range(len(found))]
        assert [a[4:] for a in found[: len(ports)]] == [[f"HBM[{p['hbm']}]"] for p in ports]
        assert not any(a[4:] for a in found[len(ports) :])
        # registers behind the control registers: 12 bytes a pointer, 8 a number, none for a stream
        offsets = [int(a[2]) for a in found if a[1] not in kernel["axis_in"] + kernel["axis_out"]]
        wanted = [0x10 + 12 * i for i in range(len(ports))]
        assert offsets == wanted + [0x10 + 12 * len(ports) + 8 * i for i in range(4)]
    assert banks[:32] == [[f"HBM[{i}]", str(i << 28), str(256 << 10)] for i in range(32)]
    assert [b[0] for b in banks[32:]] == ["DDR[0]", "DDR[1]"]
    text = (generating.folder / "manifest.json").read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    assert own == {
        "format": FORMAT,
        "design": manifest["design"],
        "manifest_sha256": digest,
        "emulated": True,
    }


@pytest.mark.xrt
@pytest.mark.gxx
def test_xrt_says_where_arguments_are_connected(plain: Card) -> None:
    ports = plain.manifest["ports"]
    lines = [*plain.opened(), *(f"group {p['kernel']} {p['index']}" for p in ports)]
    answers = plain.run([*lines, "kernel x no_such_kernel"])
    for port in ports:
        assert answers.of(f"group {port['kernel']} {port['index']}") == f"ok {port['hbm']}"
    assert "No such kernel 'no_such_kernel'" in answers.of("kernel x")


def test_the_same_design_gives_the_same_bytes_and_another_manifest_another_uuid() -> None:
    design = compiled("mlp3d").design
    first, again = xclbin(design, U280, "00"), xclbin(design, U280, "00")
    other = xclbin(design, U280, "01")
    assert first == again
    assert first[:8] == b"xclbin2\0"
    uuid = slice(304 + 48 + 64, 304 + 48 + 64 + 16)
    assert first[uuid] != other[uuid]
    assert len({first[uuid], other[uuid], bytes(16)}) == 3


def test_arguments_are_those_of_the_kernel_s_source() -> None:
    design = compiled("mlp3d").design
    where = channels(design, U280)
    for kernel in design.kernels:
        found = kernel_arguments(design, kernel)
        assert [a.name for a in found] == [text.split()[-1].strip("*&") for text in arguments(design, kernel)]
        assert {a.name for a in found if a.kind == "memory"} == {n for k, n in where if k == kernel.name}


def test_a_name_that_the_format_cannot_hold_is_refused() -> None:
    design = compiled("mlp3d").design
    long = replace(design.kernels[0], name="k" * 40)
    with pytest.raises(CompileError, match=r"more than 63 bytes; give the design a shorter name"):
        xclbin(replace(design, kernels=[long, *design.kernels[1:]]), U280, "00")
