# SPDX-License-Identifier: Apache-2.0
"""The parts of the strict checker of emitted HLS; `torch2fpga.emit.check` is its entry."""
