# SPDX-License-Identifier: Apache-2.0
"""Sources of the emitted host program (C++17, XRT), and building them."""
