# SPDX-License-Identifier: Apache-2.0
"""``python -m torch2fpga.cli``."""

from torch2fpga.cli import main

main()
