# SPDX-License-Identifier: MulanPSL-2.0
"""`python -m bench`: the kernel and gazelled side by side, in one run, on one machine."""
