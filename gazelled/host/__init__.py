# SPDX-License-Identifier: MulanPSL-2.0
"""The host around an instance: devices, addresses, routes, tc programs, and the journal that puts all of it back.

Stands on base and planning (a topology is what the probe of the machine fills in). The only part that knows netlink.
Must not know instances and their workers.
"""
