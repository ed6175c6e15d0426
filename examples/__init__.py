# SPDX-License-Identifier: Apache-2.0
"""Models to try: each module has ``factory()``, usable as ``examples.mlp:factory``."""
