# SPDX-License-Identifier: Apache-2.0
"""Large models: projects without weights, and weights that are packed later, shard by shard."""
