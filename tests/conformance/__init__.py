# SPDX-License-Identifier: MulanPSL-2.0
"""Differential conformance: every case runs on the kernel and on the stack, and what a program sees is compared."""
