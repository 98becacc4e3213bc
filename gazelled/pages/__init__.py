# SPDX-License-Identifier: MulanPSL-2.0
"""The pages of shared memory, as the C side declares them: what the plan fixes, and what a worker shows of itself.

Stands on base and configuration; its other side is native/include/gazelle. Must not know how workers are started.
"""
