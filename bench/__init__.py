# SPDX-License-Identifier: MulanPSL-2.0
"""`make bench`: the kernel and gazelled side by side, in one run, on one machine."""
