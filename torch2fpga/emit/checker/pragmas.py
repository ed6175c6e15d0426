# SPDX-License-Identifier: Apache-2.0
"""The grammar of HLS pragmas as data.

Source: XlxPragmaOption.td, ParseXlxPragma.cpp and XILINXFPGAPlatformBasic.cpp of AMD's open HLS
clang front end (Xilinx/hls-llvm-project), restated; legal type and impl pairs of bind_storage:
UG1399 2022.2, "pragma HLS bind_storage".  The real front end drops a malformed pragma with a
warning, so a typo costs speed without failing the build; here it is an error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FLAG, INT, ID, VAR, ENUM, NUMBER = "flag", "integer", "identifier", "variable", "enum", "number"


@dataclass(frozen=True)
class Option:
    """One `name`, `name=value` or, where `bare`, an enum value written alone."""

    name: str
    form: str
    required: bool = False
    values: tuple[str, ...] = ()
    bare: bool = False
    deprecated: str = ""


@dataclass(frozen=True)
class Kind:
    """One pragma kind: its options, and the scopes ("function", "loop", "region") it may stand in.

    `direct` scopes are checked against the innermost body; `exclusive` lists pairs that may not
    meet; of every `one_of` group at least one option must be there.
    """

    name: str
    options: tuple[Option, ...] = ()
    scopes: frozenset[str] = frozenset({"function", "loop", "region"})
    exclusive: tuple[tuple[str, str], ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()
    top_only: bool = False
    refused: str = ""


def _int(name: str, *, required: bool = False) -> Option:
    return Option(name, INT, required=required)


def _flag(name: str, deprecated: str = "") -> Option:
    return Option(name, FLAG, deprecated=deprecated)


def _id(name: str, *values: str, required: bool = False) -> Option:
    return Option(name, ID, required=required, values=values)


def _var(name: str, *, required: bool = False) -> Option:
    return Option(name, VAR, required=required)


def _enum(name: str, *values: str, bare: bool = True, required: bool = False) -> Option:
    return Option(name, ENUM, required=required, values=values, bare=bare)


STORAGE_IMPLS: dict[str, frozenset[str]] = {
    "fifo": frozenset({"auto", "bram", "lutram", "uram", "srl", "memory"}),
    "ram_1p": frozenset({"auto", "bram", "lutram", "uram"}),
    "ram_1wnr": frozenset({"auto", "bram", "lutram", "uram"}),
    "ram_2p": frozenset({"auto", "bram", "lutram", "uram"}),
    "ram_s2p": frozenset({"auto", "bram", "bram_ecc", "lutram", "uram", "uram_ecc"}),
    "ram_t2p": frozenset({"auto", "bram", "uram"}),
    "rom_1p": frozenset({"auto", "bram", "lutram"}),
    "rom_2p": frozenset({"auto", "bram", "lutram"}),
    "rom_np": frozenset({"auto", "bram", "lutram"}),
}
STORAGE_TYPES = tuple(STORAGE_IMPLS)
STORAGE_IMPL_NAMES = ("auto", "bram", "bram_ecc", "lutram", "uram", "uram_ecc", "memory", "srl")

_FULL, _MED, _MAX, _PRIM = "fulldsp", "meddsp", "maxdsp", "primitivedsp"
OP_IMPLS: dict[str, frozenset[str]] = {
    "mul": frozenset({"dsp", "fabric"}),
    "add": frozenset({"dsp", "fabric"}),
    "sub": frozenset({"dsp", "fabric"}),
    "fadd": frozenset({"dsp", "fabric", _FULL, _MED, _PRIM}),
    "fsub": frozenset({"dsp", "fabric", _FULL, _MED, _PRIM}),
    "fmul": frozenset({"dsp", "fabric", _FULL, _MED, _MAX, _PRIM}),
    "dadd": frozenset({"dsp", "fabric", _FULL}),
    "dsub": frozenset({"dsp", "fabric", _FULL}),
    "dmul": frozenset({"dsp", "fabric", _FULL, _MED, _MAX}),
    "hadd": frozenset({"dsp", "fabric", _FULL, _MED}),
    "hsub": frozenset({"dsp", "fabric", _FULL, _MED}),
    "hmul": frozenset({"dsp", "fabric", _FULL, _MAX}),
    **dict.fromkeys(("fexp", "flog", "dexp", "dlog"), frozenset({"dsp", "fabric", _MED})),
    **dict.fromkeys(("frsqrt", "frecip", "drsqrt", "drecip"), frozenset({"dsp", "fabric", _FULL})),
    **dict.fromkeys(("fdiv", "ddiv", "hdiv", "fsqrt", "dsqrt", "hsqrt"), frozenset({"fabric"})),
}
OP_IMPL_NAMES = ("dsp", "fabric", _MED, _FULL, _MAX, _PRIM)

_REGISTER = _flag("register")
_SIMPLE = (_REGISTER, _int("depth"))
_MEMORY = (_int("depth"), _int("latency"), _id("storage_type"), _id("storage_impl"))
INTERFACE_MODES: dict[str, tuple[Option, ...]] = {
    "m_axi": (
        _id("bundle"),
        _int("depth"),
        _enum("offset", "off", "direct", "slave", bare=False),
        _int("num_read_outstanding"),
        _int("num_write_outstanding"),
        _int("max_read_burst_length"),
        _int("max_write_burst_length"),
        _int("latency"),
        _int("max_widen_bitwidth"),
        _int("channel"),
    ),
    "axis": (
        _REGISTER,
        _enum("register_mode", "forward", "reverse", "both", "off"),
        _int("depth"),
    ),
    "s_axilite": (
        _id("bundle"),
        _int("offset"),
        _id("clock"),
        _id("storage_impl"),
        _REGISTER,
    ),
    "ap_memory": _MEMORY,
    "bram": _MEMORY,
    "ap_none": _SIMPLE,
    "ap_fifo": _SIMPLE,
    "ap_ack": _SIMPLE,
    "ap_vld": _SIMPLE,
    "ap_hs": (*_SIMPLE, _int("interrupt")),
    "ap_ovld": (*_SIMPLE, _int("interrupt")),
    "ap_ctrl_none": (),
    "ap_ctrl_hs": (),
    "ap_ctrl_chain": (),
}
REFUSED_MODES = {"ap_stable": "write `stable`", "ap_bus": "write `m_axi`"}
_MODE = _enum("mode", *INTERFACE_MODES, *REFUSED_MODES, required=True)
INTERFACE_COMMON = (_var("port", required=True), _id("name"), _MODE)

_PARTITION = (
    _var("variable", required=True),
    _enum("type", "block", "cyclic", "complete"),
    _int("factor"),
    _int("dim"),
)
_LOOP = frozenset({"loop"})
_BODY = frozenset({"function", "loop"})
_FUNCTION = frozenset({"function"})
_INNER = frozenset({"loop", "region"})

_TABLE = (
    Kind("interface", INTERFACE_COMMON, _FUNCTION, top_only=True),
    Kind(
        "pipeline",
        (
            _int("ii"),
            _flag("rewind"),
            _flag("off"),
            _enum("style", "stp", "flp", "frp", bare=False),
            _flag("enable_flush", deprecated="write style=flp"),
        ),
        _BODY,
        exclusive=(("style", "off"), ("style", "enable_flush"), ("off", "ii"), ("off", "rewind")),
    ),
    Kind("unroll", (_int("factor"), _flag("skip_exit_check")), _LOOP),
    Kind("dataflow", (_flag("disable_start_propagation"),), _BODY),
    Kind(
        "stream",
        (
            _var("variable", required=True),
            _int("depth"),
            _enum("type", "fifo", "pipo", "shared", "unsync", bare=False),
            _flag("off", deprecated="write type=pipo"),
        ),
    ),
    Kind("array_partition", _PARTITION),
    Kind("array_reshape", (*_PARTITION, _flag("object"))),
    Kind(
        "bind_storage",
        (
            _var("variable", required=True),
            _id("type", *STORAGE_TYPES, required=True),
            _id("impl", *STORAGE_IMPL_NAMES),
            _int("latency"),
        ),
    ),
    Kind(
        "bind_op",
        (
            _var("variable", required=True),
            _id("op", *OP_IMPLS, required=True),
            _id("impl", *OP_IMPL_NAMES),
            _int("latency"),
        ),
    ),
    Kind("inline", (_flag("off"), _flag("recursive")), _FUNCTION),
    Kind(
        "dependence",
        (
            _var("variable"),
            _flag("cross_variables"),
            _enum("class", "array", "pointer"),
            _enum("type", "intra", "inter"),
            _enum("direction", "raw", "war", "waw"),
            _int("distance"),
            _enum("dependent", "true", "false"),
        ),
        exclusive=(("variable", "cross_variables"),),
        one_of=(("variable", "cross_variables"),),
    ),
    Kind(
        "aggregate",
        (_var("variable", required=True), _enum("compact", "bit", "byte", "none", "auto")),
    ),
    Kind("disaggregate", (_var("variable", required=True),)),
    Kind("loop_tripcount", (_int("min"), _int("max", required=True), _int("avg")), _LOOP),
    Kind("loop_flatten", (_flag("off"),), _LOOP),
    Kind("loop_merge", (_flag("force"),)),
    Kind("latency", (_int("min"), _int("max")), one_of=(("min", "max"),)),
    Kind(
        "allocation",
        (
            _enum("class", "function", "operation", required=True),
            _id("instances", required=True),
            _int("limit", required=True),
        ),
    ),
    Kind(
        "alias",
        (_var("ports", required=True), Option("offset", NUMBER), _int("distance")),
        _FUNCTION,
        exclusive=(("offset", "distance"),),
        one_of=(("offset", "distance"),),
    ),
    Kind("expression_balance", (_flag("off"),)),
    Kind("function_instantiate", (_var("variable", required=True),), _FUNCTION),
    Kind("occurrence", (_int("cycle"),), _INNER),
    Kind("protocol", (_enum("mode", "floating", "fixed"),), _INNER),
    Kind("reset", (_var("variable", required=True), _flag("off"))),
    Kind("stable", (_var("variable", required=True),)),
    Kind("top", (_id("name"),), _FUNCTION),
    Kind("performance", (Option("target_ti", NUMBER), Option("target_tl", NUMBER))),
    Kind(
        "cache",
        (_var("port", required=True), _int("lines"), _int("depth")),
        _FUNCTION,
        refused="not accepted by the tools that support the U280 (2023.2 and before)",
    ),
    Kind("resource", refused="deprecated: write bind_op or bind_storage"),
    Kind("shared", refused="deprecated: write stream type=shared"),
    Kind("clock", refused="deprecated"),
    Kind("data_pack", refused="hidden: write aggregate"),
    Kind("array_stencil", refused="hidden in the front end"),
    Kind("stable_content", refused="hidden in the front end"),
    Kind("extract", refused="unsupported by the front end"),
    Kind("region", refused="unsupported by the front end"),
    Kind("array_map", refused="unsupported by the front end"),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _TABLE}

# Options the front end knows only to refuse them: kind -> option -> what to do instead.
REMOVED: dict[str, dict[str, str]] = {
    "unroll": dict.fromkeys(("region", "complete", "partial"), "removed from the language"),
    "stream": {"dim": "refused by the front end"},
    "inline": dict.fromkeys(("self", "all", "region"), "unsupported or deprecated"),
    "array_partition": {"dynamic": "hidden in the front end"},
    "array_reshape": {"dynamic": "hidden in the front end"},
    "dataflow": {"interval": "ignored by the front end"},
    "performance": dict.fromkeys(("assume_ti", "assume_tl"), "hidden in the front end"),
}


def kind_of(name: str, mode: str | None) -> Kind | None:
    """The grammar of a pragma; for `interface` the options depend on the mode."""
    kind = KINDS.get(name)
    if kind is None or name != "interface":
        return kind
    return replace(kind, options=INTERFACE_COMMON + INTERFACE_MODES.get(mode or "", ()))
