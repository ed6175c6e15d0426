# SPDX-License-Identifier: Apache-2.0
"""Graph passes: each states what it needs and promises; the manager checks both and the graph.

Shape after ``torch.fx.passes.infra.pass_manager``: a pass changes a GraphModule in place and says
whether it did (or builds a new one); an error names the pass and those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import fx

from torch2fpga.errors import DesignError, Error


class GraphPass:
    """A pass over a GraphModule.

    Attributes:
        name: shown in errors and progress.
        requires: properties that earlier passes must have established.
        ensures: properties that hold afterwards.
    """

    name: str = ""
    requires: tuple[str, ...] = ()
    ensures: tuple[str, ...] = ()

    def call(self, module: fx.GraphModule) -> bool:
        """Change ``module`` in place; True if anything changed."""
        raise NotImplementedError

    def replace(self, module: fx.GraphModule) -> fx.GraphModule:
        """The module after the pass: ``module`` itself, or a new one for passes that build one."""
        if self.call(module):
            module.recompile()
        return module

    def verify(self, module: fx.GraphModule) -> None:
        """Check what the pass promises (graph lint is always run).

        Raises:
            DesignError: if the promise does not hold.
        """


class PassManager:
    """Runs passes in order and verifies the graph after each.

    Args:
        passes: in order; what a pass requires must be ensured by one before it.
        given: properties that hold from the start.
        progress: called with a pass's name and the fraction done before it runs.
    """

    def __init__(
        self,
        passes: Sequence[GraphPass],
        given: Sequence[str] = (),
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        self.passes = tuple(passes)
        self.progress = progress
        have = set(given)
        for item in self.passes:
            missing = set(item.requires) - have
            if missing:
                raise DesignError(
                    f"pass {item.name} needs {sorted(missing)}, which no pass before it ensures"
                )
            have |= set(item.ensures)

    def run(self, module: fx.GraphModule) -> fx.GraphModule:
        """The module after all passes."""
        done: list[str] = []
        for number, item in enumerate(self.passes):
            if self.progress is not None:
                self.progress(item.name, number / len(self.passes))
            try:
                module = item.replace(module)
                module.graph.lint()
                item.verify(module)
            except Error:
                raise
            except Exception as error:
                raise DesignError(f"pass {item.name} failed after {done}: {error}") from error
            done.append(item.name)
        return module
