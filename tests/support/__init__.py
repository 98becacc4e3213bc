# SPDX-License-Identifier: MulanPSL-2.0
"""The table of what the shim supports, docs/reference/support.md, and the probes that keep it true."""
