# SPDX-License-Identifier: MulanPSL-2.0
"""Benchmarks: commands that print kernel and gazelled side by side. Never part of the tests."""
