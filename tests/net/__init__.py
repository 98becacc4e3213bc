# SPDX-License-Identifier: MulanPSL-2.0
"""Network tests: namespaces, real programs; they need root."""
