# SPDX-License-Identifier: Apache-2.0
"""Building an emitted project with the vendor's tools: check, run, resume, read back, compare.

Nothing here has ever run with the real tools (docs/building.md says what it was tested with instead).
"""

from __future__ import annotations

from torch2fpga.errors import Error

#: what can be asked for, in the order in which a user would
TARGETS = ("csim", "csynth", "cosim", "hw_emu", "hw")
#: how Vitis HLS is called: ``vitis_hls -f`` or the unified command line of 2023.2
FLOWS = ("tcl", "cfg")


class BuildError(Error):
    """A project cannot be built or a report cannot be understood; the text has all reasons."""
