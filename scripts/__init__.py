# SPDX-License-Identifier: Apache-2.0
"""Programs of the repository: smoke test, figures in the documents."""
