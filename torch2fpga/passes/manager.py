# SPDX-License-Identifier: Apache-2.0
"""Graph passes: each states what it needs and promises; the manager checks both and the graph.

Shape after ``torch.fx.passes.infra.pass_manager``: a pass changes a GraphModule in place and says
whether it did; an error names the pass and those before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import fx

from torch2fpga.errors import DesignError, Error


class GraphPass(ABC):
    """A pass over a GraphModule.

    Attributes:
        name: shown in errors and progress.
        requires: properties that earlier passes must have established.
        ensures: properties that hold afterwards.
    """

    name: str = ""
    requires: tuple[str, ...] = ()
    ensures: tuple[str, ...] = ()

    @abstractmethod
    def call(self, module: fx.GraphModule) -> bool:
        """Change ``module`` in place; True if anything changed."""

    def verify(self, module: fx.GraphModule) -> None:  # noqa: B027  nothing to check is a fine default
        """Check what the pass promises (graph lint is always run).

        Raises:
            DesignError: if the promise does not hold.
        """


class PassManager:
    """Runs passes in order and verifies the graph after each."""

    def __init__(self, passes: Sequence[GraphPass]) -> None:
        self.passes = tuple(passes)
        have: set[str] = set()
        for item in self.passes:
            missing = set(item.requires) - have
            if missing:
                raise DesignError(
                    f"pass {item.name} needs {sorted(missing)}, which no pass before it ensures"
                )
            have |= set(item.ensures)

    def __call__(self, module: fx.GraphModule) -> bool:
        """Run all passes; True if any changed the module."""
        modified = False
        done: list[str] = []
        for item in self.passes:
            try:
                changed = item.call(module)
                module.graph.lint()
                item.verify(module)
            except Error:
                raise
            except Exception as error:
                raise DesignError(f"pass {item.name} failed after {done}: {error}") from error
            if changed:
                module.recompile()
            modified |= changed
            done.append(item.name)
        return modified
