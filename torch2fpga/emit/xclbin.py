# SPDX-License-Identifier: Apache-2.0
"""A design as an xclbin without bitstream: what XRT needs to know of its kernels and memories.

The layout is ``xclbin.h`` of XRT (structures ``axlf``, ``mem_topology``, ``connectivity``, ``ip_layout``);
all numbers are little-endian. A card cannot be programmed with it: it is for XRT's no-op driver, in front
of which the emulated card computes (docs/emulated-card.md).
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from xml.etree import ElementTree as Xml

from torch2fpga.boards import Board
from torch2fpga.design import Design, Kernel
from torch2fpga.emit.kernel import scalars
from torch2fpga.emit.link import channels, instance
from torch2fpga.emit.ports import bundle, kernel_ports
from torch2fpga.errors import CompileError

FORMAT = "torch2fpga xclbin"

#: ``axlf_section_kind``
EMBEDDED_METADATA, MEM_TOPOLOGY, CONNECTIVITY, IP_LAYOUT = 2, 6, 7, 8
USER_METADATA, ASK_GROUP_TOPOLOGY, ASK_GROUP_CONNECTIVITY = 16, 26, 27
#: ``MEM_TYPE``, ``IP_TYPE`` and ``IP_CONTROL << IP_CONTROL_SHIFT``
MEM_DDR4, MEM_HBM, IP_KERNEL, AP_CTRL_CHAIN = 1, 6, 1, 1 << 8
#: DDR of an Alveo card behind its HBM: base address and bytes of each bank (UG1120)
DDR = ((0x40_0000_0000, 16 << 30), (0x50_0000_0000, 16 << 30))
#: names in xclbin.h: bytes with the final zero
NAME_BYTES, TAG_BYTES = 64, 16
#: AXI-Lite of the first kernel, and of one kernel
CONTROL_BASE, CONTROL_BYTES = 0x180_0000, 0x1_0000
#: offset of the first argument (behind the control registers of ap_ctrl_chain, UG1399)
FIRST_ARGUMENT = 0x10
ALL_ADDRESSES = "0xFFFFFFFFFFFFFFFF"


@dataclass(frozen=True)
class Argument:
    """One argument of a kernel, as XRT numbers them.

    Attributes:
        kind: ``memory``, ``stream`` or ``number``.
        ctype: its type in the kernel's source.
        port: port of the kernel that it comes in at.
        offset: of its register in the control port (0 for a stream).
        size: bytes of that register.
        write: does the kernel write it (memory, stream)?
    """

    name: str
    kind: str
    ctype: str
    port: str
    offset: int
    size: int
    write: bool = False


def kernel_arguments(design: Design, kernel: Kernel) -> list[Argument]:
    """Arguments in the order of ``arguments()``: memory, streams, numbers; streams are numbered too."""
    offset, found = FIRST_ARGUMENT, []
    for p in kernel_ports(design, kernel):
        master = f"M_AXI_{bundle(p)}".upper()
        found.append(Argument(p.name, "memory", p.ctype.replace("const ", ""), master, offset, 8, p.write))
        offset += 12  # two registers and one that is kept free
    lanes = design.shape.lanes
    for names, write in ((kernel.axis_in, False), (kernel.axis_out, True)):
        for name in names:
            ctype = f"stream<{design.streams[name].cpp_type(lanes)}>&"
            found.append(Argument(name, "stream", ctype, name, 0, 4, write))
    for name in scalars(design, kernel):
        found.append(Argument(name, "number", "int", "S_AXI_CONTROL", offset, 4))
        offset += 8
    return found


def xclbin(design: Design, board: Board, manifest_sha256: str) -> bytes:
    """The file; the same design and manifest give the same bytes and the same UUID.

    Args:
        manifest_sha256: of ``manifest.json``, by which a host tells whose xclbin it is.
    Raises:
        CompileError: if a name is too long for the format, or memories run out (``channels``).
    """
    _check_names(design)
    topology = _topology(board)
    connections = _connectivity(design, board)
    user = {
        "format": FORMAT,
        "design": design.name,
        "manifest_sha256": manifest_sha256,
        "emulated": True,
    }
    sections = [
        (EMBEDDED_METADATA, "metadata", _metadata(design, board)),
        (MEM_TOPOLOGY, "topology", topology),
        (CONNECTIVITY, "connectivity", connections),
        (IP_LAYOUT, "ip_layout", _ip_layout(design)),
        (ASK_GROUP_TOPOLOGY, "group_topology", topology),
        (ASK_GROUP_CONNECTIVITY, "group_connect", connections),
        (USER_METADATA, "torch2fpga", (json.dumps(user, sort_keys=True) + "\n").encode()),
    ]
    return _file(sections, board.platform)


def _check_names(design: Design) -> None:
    """Names must fit the fixed fields of the format."""
    problems = [
        f"kernel {k.name}: {k.name}:{instance(k)} has more than {NAME_BYTES - 1} bytes"
        for k in design.kernels
        if len(f"{k.name}:{instance(k)}".encode()) >= NAME_BYTES
    ]
    if problems:
        raise CompileError("; ".join(problems) + "; give the design a shorter name")


def _topology(board: Board) -> bytes:
    """Banks: all pseudo-channels of the HBM, then DDR. Sizes in KiB."""
    banks = [(MEM_HBM, board.hbm_bytes, i * board.hbm_bytes, f"HBM[{i}]") for i in range(board.hbm_channels)]
    if board.name.partition(":")[0] == "u280":  # the only card here with DDR beside its HBM
        banks += [(MEM_DDR4, size, base, f"DDR[{i}]") for i, (base, size) in enumerate(DDR)]
    lines = [
        struct.pack("<BB6xQQ16s", kind, 1, size >> 10, base, tag.encode()) for kind, size, base, tag in banks
    ]
    return struct.pack("<i4x", len(lines)) + b"".join(lines)


def _connectivity(design: Design, board: Board) -> bytes:
    """(argument, kernel, bank) of every memory argument."""
    where = channels(design, board)
    found = [
        struct.pack("<iii", index, number, where[kernel.name, a.name])
        for number, kernel in enumerate(design.kernels)
        for index, a in enumerate(kernel_arguments(design, kernel))
        if a.kind == "memory"
    ]
    return struct.pack("<i", len(found)) + b"".join(found)


def _ip_layout(design: Design) -> bytes:
    """One instance of every kernel."""
    found = [
        struct.pack(
            "<IIQ64s",
            IP_KERNEL,
            AP_CTRL_CHAIN,
            CONTROL_BASE + number * CONTROL_BYTES,
            f"{kernel.name}:{instance(kernel)}".encode(),
        )
        for number, kernel in enumerate(design.kernels)
    ]
    return struct.pack("<i4x", len(found)) + b"".join(found)


def _metadata(design: Design, board: Board) -> bytes:
    """The XML that XRT takes kernels and their arguments from."""
    project = Xml.Element("project", name=design.name)
    vendor, _, platform = board.platform.partition("_")
    place = Xml.SubElement(project, "platform", vendor=vendor, boardid=platform, name=board.platform)
    Xml.SubElement(place, "version", major="1", minor="0")
    device = Xml.SubElement(place, "device", name="fpga0", fpgaDevice=board.part, addrWidth="64")
    core = Xml.SubElement(device, "core", name="OCL_REGION_0", type="clc_region", target="hw")
    for number, kernel in enumerate(design.kernels):
        _kernel(core, design, kernel, CONTROL_BASE + number * CONTROL_BYTES)
    Xml.indent(project)
    text: bytes = Xml.tostring(project, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _kernel(core: Xml.Element, design: Design, kernel: Kernel, base: int) -> None:
    """One kernel: its ports, arguments and only instance."""
    node = Xml.SubElement(
        core, "kernel", name=kernel.name, language="c", type="pl", hwControlProtocol="ap_ctrl_chain"
    )
    arguments = kernel_arguments(design, kernel)
    head = {"portType": "addressable", "base": "0x0"}
    control = {"name": "S_AXI_CONTROL", "mode": "slave", "range": hex(CONTROL_BYTES), "dataWidth": "32"}
    Xml.SubElement(node, "port", head | control)
    for port in dict.fromkeys(a.port for a in arguments if a.kind == "memory"):
        master = {"name": port, "mode": "master", "range": ALL_ADDRESSES, "dataWidth": "512"}
        Xml.SubElement(node, "port", head | master)
    for a in arguments:
        if a.kind == "stream":
            mode = "write_only" if a.write else "read_only"
            width = str(8 * design.streams[a.name].token_bytes(design.shape.lanes))
            Xml.SubElement(node, "port", name=a.port, mode=mode, portType="stream", dataWidth=width)
    for index, a in enumerate(arguments):
        qualifier = {"number": "0", "memory": "1", "stream": "4"}[a.kind]
        Xml.SubElement(
            node, "arg", name=a.name, addressQualifier=qualifier, id=str(index), port=a.port,
            size=hex(a.size), offset=hex(a.offset), hostOffset="0x0", hostSize=hex(a.size), type=a.ctype,
        )  # fmt: skip
    place = Xml.SubElement(node, "instance", name=instance(kernel))
    Xml.SubElement(place, "addrRemap", base=hex(base), range=hex(CONTROL_BYTES), port="S_AXI_CONTROL")


def _file(sections: list[tuple[int, str, bytes]], platform: str) -> bytes:
    """``struct axlf``: header, section headers, sections at multiples of 8 bytes."""
    at = 456 + 40 * len(sections)
    heads, bodies = [], []
    for kind, name, body in sections:
        heads.append(struct.pack("<I16s4xQQ", kind, name.encode(), at, len(body)))
        padded = body + bytes(-len(body) % 8)
        bodies.append(padded)
        at += len(padded)
    content = b"".join(heads) + b"".join(bodies)
    # A UUID of the content (version 5 of RFC 4122 in the bits that say so).
    uuid = bytearray(hashlib.sha256(platform.encode() + b"\0" + content).digest()[:16])
    uuid[6], uuid[8] = uuid[6] & 0x0F | 0x50, uuid[8] & 0x3F | 0x80
    head = struct.pack(
        "<8si28s256sQ", b"xclbin2", -1, b"\xff" * 28, bytes(256), int.from_bytes(uuid[:8], "little")
    )
    head += struct.pack(
        "<QQQHBBHH16s64s16s16sI4x",
        at, 0, 0, 0, 2, 13, 0, 0, bytes(16), platform.encode()[:63], bytes(uuid), b"", len(sections),
    )  # fmt: skip
    return head + content
