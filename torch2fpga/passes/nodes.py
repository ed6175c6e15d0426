# SPDX-License-Identifier: Apache-2.0
"""How FX nodes are typed here.

``fx.Node.args`` is a union of twenty types that no checker can index without a cast at every use;
the canonical graph's own verifier (shapes, operators, one writer a stream) is what holds instead.
"""

from __future__ import annotations

from typing import Any, TypeAlias

#: a ``torch.fx.Node``
Node: TypeAlias = Any
