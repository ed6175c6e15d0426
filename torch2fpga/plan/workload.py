# SPDX-License-Identifier: Apache-2.0
"""What a model asks of a card, read off its modules: weights, products, keys and values.

Only shapes are read, so a model on the meta device (no weights) serves as well as a loaded one. What the
modules do not say and a configuration does not either is assumed, and every assumption is kept as a
sentence beside the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from torch2fpga.errors import CompileError
from torch2fpga.plan.workload_attention import Attention, attention_of
from torch2fpga.plan.workload_matrices import Experts, Matrix, matrices_of

#: parts of a path that mark a matrix which works on one row of a sequence, not on all
ONE_ROW = ("pooler", "classifier", "score", "logits_proj")


@dataclass(frozen=True)
class Block:
    """One layer of a model.

    Attributes:
        path: where it stands in the model.
        stored: weights of its matrices.
        active: weights that a token is multiplied by; below ``stored`` with experts.
        routed: of ``active``, those of experts: other tokens may choose others.
        channels: output channels of its matrices.
        width: channels of the rows that it takes.
        row_channels: output channels that one row has in it; below ``channels`` with experts.
        attention: its keys, values and products.
        links: products that depend on one another once keys and values are there; each holds a tile.
    """

    path: str
    stored: int
    active: int
    routed: int
    channels: int
    width: int
    row_channels: int
    attention: Attention
    links: int

    def read(self, rows: int) -> int:
        """Weights that are read for ``rows`` tokens: at most all experts, at least one token's."""
        return min(self.stored, self.active - self.routed + rows * self.routed)


@dataclass(frozen=True)
class Stack:
    """Blocks that rows pass one after the other.

    Attributes:
        role: "encoder" sees a prompt once, "decoder" makes tokens.
        repeat: how often rows pass all blocks (models whose layers share their weights).
        rows: of one input where that is fixed (an image's patches and class), else None.
        patches: of these, patches.
    """

    path: str
    role: Literal["encoder", "decoder"]
    blocks: tuple[Block, ...]
    repeat: int = 1
    rows: int | None = None
    patches: int | None = None


@dataclass(frozen=True)
class Workload:
    """A model in numbers.

    Attributes:
        parameters: all of the model, shared ones once.
        stem: weights outside of blocks that every row is multiplied by.
        pooled: weights outside of blocks that one row of a sequence is multiplied by.
        head: weights of the language model's head; 0 without one.
        tables: values in embedding tables.
        positions: longest sequence, if the model has a limit.
        assumptions: what was taken for granted, in sentences.
    """

    name: str
    stacks: tuple[Stack, ...]
    parameters: int
    stem: int
    pooled: int
    head: int
    tables: int
    channels: int
    positions: int | None
    assumptions: tuple[str, ...] = field(default=())

    @property
    def generative(self) -> bool:
        """Whether it makes tokens one after the other."""
        return any(stack.role == "decoder" for stack in self.stacks)

    @property
    def joint(self) -> bool:
        """Whether a decoder attends to an encoder's rows."""
        roles = {stack.role for stack in self.stacks}
        return len(roles) == 2 and any(block.attention.cross_kept for block in self.blocks)

    @property
    def patches(self) -> int | None:
        """Rows of an input outside of blocks where that is fixed (an image's patches), else None."""
        return max((s.patches for s in self.stacks if s.patches), default=None)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Of all stacks."""
        return tuple(block for stack in self.stacks for block in stack.blocks)

    @property
    def matrices(self) -> int:
        """Weights of all matrices as they are stored."""
        return sum(b.stored for b in self.blocks) + self.stem + self.pooled + self.head

    @property
    def kv_values(self) -> int:
        """Values kept for each token of a sequence that a decoder sees; windows are not considered."""
        decoders = (s for s in self.stacks if s.role == "decoder")
        return sum(s.repeat * sum(b.attention.kept for b in s.blocks) for s in decoders)


class Reader:
    """Walks one model; collects assumptions on the way."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.config: Any = getattr(model, "config", None)
        self.notes: dict[str, None] = {}
        self.seen: set[int] = set()

    def note(self, text: str) -> None:
        """Keep an assumption, once."""
        self.notes[text] = None

    def read(self, name: str) -> Workload:
        """The workload of the model.

        Raises:
            CompileError: without repeated blocks, without matrices in them, or with blocks of no common
                width (tokens are merged between them).
        """
        found = list(block_lists(self.model))
        if not found:
            raise CompileError(
                f"{name} has no repeated block with linear layers: expected a list of layers "
                "(nn.ModuleList or nn.Sequential) of which each holds two or more linear layers; "
                "estimates are for transformers and their like"
            )
        stacks = tuple(self._stack(path, blocks) for path, blocks in found)
        covered = {id(p) for _, blocks in found for b in blocks for p in b.parameters()}
        head, stem, pooled, channels = self._outside(covered)
        tables = {id(m.weight): m.weight.numel() for m in self.model.modules() if isinstance(m, nn.Embedding)}
        if any(s.role == "decoder" for s in stacks) and not head:
            self.note(f"{type(self.model).__name__} has no language-model head: none is counted")
        return Workload(
            name=name,
            stacks=stacks,
            parameters=sum(p.numel() for p in self.model.parameters()),
            stem=stem,
            pooled=pooled,
            head=head,
            tables=sum(tables.values()),
            channels=channels,
            positions=self._positions(),
            assumptions=tuple(self.notes),
        )

    def _stack(self, path: str, blocks: Sequence[nn.Module]) -> Stack:
        config = self._config_of(path)
        experts = Experts.of(config)
        role = self._role(path, config)
        made = []
        for index, block in enumerate(blocks):
            where = f"{path}.{index}" if path else str(index)
            found = list(matrices_of(block, where, experts, self.note))
            made.append(self._block(where, block, found, config, index))
        widths = {b.width for b in made}
        if len(widths) > 1:
            raise CompileError(
                f"the blocks of {path or 'the model'} take rows of different widths ({sorted(widths)}): rows "
                "are merged between them, which this estimate does not follow"
            )
        without = sum(not b.attention.score for b in made)
        if without:
            self.note(
                f"{without} of {len(made)} blocks of {path or 'the model'} keep no keys and values that are "
                "recognised: only their matrices are counted, not a recurrence or products of attention"
            )
        repeat = self._repeat(path, len(made), config)
        return Stack(path, role, tuple(made), repeat, self._rows(path, config), fixed_rows(config))

    def _block(self, path: str, block: nn.Module, found: list[Matrix], config: Any, index: int) -> Block:
        stored = 0
        for matrix in found:
            if matrix.key not in self.seen:
                self.seen.add(matrix.key)
                stored += matrix.weights
        attention, projections = attention_of(block, config, index)
        if getattr(config, "kv_lora_rank", None) and attention.kept:
            self.note("latent attention keeps whole keys and values, as transformers caches them")
        links = {
            (m.owner, m.inputs, m.expert_list) for m in found if m.path[len(path) + 1 :] not in projections
        }
        return Block(
            path=path,
            stored=stored,
            active=sum(m.active for m in found),
            routed=sum(m.active for m in found if m.expert_list),
            channels=sum(m.outputs * m.experts for m in found),
            width=next(m.inputs for m in found if m.linear),
            row_channels=round(sum(m.outputs * m.chosen for m in found)),
            attention=attention,
            links=len(links) + (2 if attention.score else 0),
        )

    def _outside(self, covered: set[int]) -> tuple[int, int, int, int]:
        """Weights of (head, stem, pooled) matrices outside of blocks, and their output channels."""
        output = getattr(self.model, "get_output_embeddings", lambda: None)()
        sizes = {m.num_embeddings for m in self.model.modules() if isinstance(m, nn.Embedding)}
        head = stem = pooled = channels = 0
        for matrix in matrices_of(self.model, "", Experts(), self.note, raw=False):
            if matrix.key in covered or matrix.key in self.seen:
                continue
            self.seen.add(matrix.key)
            channels += matrix.outputs
            is_head = (
                matrix.module is output
                if output is not None
                else self.config is None and matrix.outputs in sizes
            )
            if is_head:
                head += matrix.weights
            elif any(word in matrix.path for word in ONE_ROW):
                pooled += matrix.weights
            else:
                stem += matrix.weights
        return head, stem, pooled, channels

    def _config_of(self, path: str) -> Any:
        """The configuration of the nearest module around a path."""
        parts = path.split(".") if path else []
        for end in range(len(parts), -1, -1):
            module = self.model.get_submodule(".".join(parts[:end]))
            config = getattr(module, "config", None)
            if config is not None:
                return config
        return None

    def _role(self, path: str, config: Any) -> Literal["encoder", "decoder"]:
        if getattr(self.config, "is_encoder_decoder", False):
            return "decoder" if "decoder" in path else "encoder"
        if fixed_rows(config) is not None:
            return "encoder"
        text = self.config.get_text_config() if hasattr(self.config, "get_text_config") else self.config
        if type(config) is not type(text):
            raise CompileError(
                f"how many rows {path} works on does not follow from {type(config).__name__}; estimate the "
                "language model alone (its text_config)"
            )
        if self.config is None:
            self.note("the model has no Hugging Face configuration: it is taken to make no tokens")
        return "decoder" if makes_tokens(self.model) else "encoder"

    def _repeat(self, path: str, count: int, config: Any) -> int:
        """Layers of the configuration for each block, where layers share their weights."""
        layers = getattr(config, "num_hidden_layers", None)
        if getattr(self.config, "is_encoder_decoder", False) or not isinstance(layers, int):
            return 1
        if layers <= count or layers % count:
            return 1
        self.note(f"{layers} layers share the weights of {count} block{'s' if count > 1 else ''} in {path}")
        return layers // count

    def _rows(self, path: str, config: Any) -> int | None:
        patches = fixed_rows(config)
        if patches is None:
            return None
        own = self.model.get_submodule(path.rpartition(".")[0])
        around = [own, self.model]
        names = {n.rpartition(".")[2] for m in around for n, _ in m.named_parameters()}
        rows = patches + bool(names & {"cls_token", "class_embedding", "class_token"})
        self.note(f"{path}: {rows} rows an image of {config.image_size} pixels, one image an input")
        return rows

    def _positions(self) -> int | None:
        text = self.config.get_text_config() if hasattr(self.config, "get_text_config") else self.config
        for name in ("max_position_embeddings", "n_positions"):
            value = getattr(text, name, None)
            if isinstance(value, int) and value > 0:
                return value
        return None


def fixed_rows(config: Any) -> int | None:
    """Patches of an image, from a vision model's configuration; None for others."""
    size, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if size is None or patch is None or getattr(config, "vocab_size", None):
        return None
    sides = size if isinstance(size, list | tuple) else (size, size)
    steps = patch if isinstance(patch, list | tuple) else (patch, patch)
    return int(sides[0] // steps[0]) * int(sides[1] // steps[1])


def makes_tokens(model: nn.Module) -> bool:
    """Whether a model is a decoder: its class, or the family of its base class, is a causal one."""
    name = type(model).__name__
    if name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return True
    config: Any = getattr(model, "config", None)
    if config is None:
        return False
    if getattr(config, "is_decoder", False):
        return True
    if "For" in name:
        return False
    from torch2fpga.plan.meta_model import is_causal_family

    return is_causal_family(config)


def block_lists(model: nn.Module) -> Iterator[tuple[str, list[nn.Module]]]:
    """(path, blocks) of the outermost lists of layers; a list of lists is one list."""
    pending: list[tuple[str, nn.Module]] = [("", model)]
    while pending:
        path, module = pending.pop(0)
        blocks = _blocks(module)
        if blocks:
            yield path, blocks
            continue
        pending += [(f"{path}.{n}" if path else n, child) for n, child in module.named_children()]


def _blocks(module: nn.Module) -> list[nn.Module]:
    if not isinstance(module, nn.ModuleList | nn.Sequential):
        return []
    children = list(module)
    if children and all(isinstance(c, nn.ModuleList) for c in children):
        children = [block for c in children for block in c.children()]
    blocks = [c for c in children if not isinstance(c, nn.Linear) and _is_block(c)]
    if isinstance(module, nn.Sequential):
        # layers one after the other, not a stem and a head that happen to stand in a row
        return blocks if len(blocks) > 1 and len({type(b) for b in blocks}) == 1 else []
    return blocks if len(blocks) == len(children) else []


def _is_block(module: nn.Module) -> bool:
    """Two or more matrices with linear layers among them."""
    found = list(matrices_of(module, "", Experts(), lambda _: None))
    return len(found) > 1 and any(m.linear for m in found)


def read_workload(model: nn.Module, name: str = "") -> Workload:
    """Weights, products, keys and values of a model, from its modules and its configuration.

    Args:
        model: any module; parameters may be on the meta device.
        name: how messages call it.

    Raises:
        CompileError: see ``Reader.read``.
    """
    return Reader(model).read(name or type(model).__name__)
