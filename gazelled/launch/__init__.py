# SPDX-License-Identifier: MulanPSL-2.0
"""Running a program on the stack: whether it can be, and standing in for it while it runs.

Stands on the standard library alone. Must not know instances: `gazelled run` brings the two together.
"""
