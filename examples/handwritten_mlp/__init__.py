# SPDX-License-Identifier: Apache-2.0
"""A two-layer perceptron written by hand with the stage library."""
