# SPDX-License-Identifier: Apache-2.0
"""Measurements behind every figure that the documents show; see README.md beside this file."""
