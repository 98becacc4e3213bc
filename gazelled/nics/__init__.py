# SPDX-License-Identifier: MulanPSL-2.0
"""Giving a NIC to DPDK and back to the kernel: what it is in use for, what goes with its driver, the change itself.

Stands on base and host. Must not know plans or instances.
"""
