# SPDX-License-Identifier: Apache-2.0
"""The timed run as users see it: reports, FIFO sizing, traces."""
