# SPDX-License-Identifier: MulanPSL-2.0
"""Whether this machine is fit for the stack: each thing looked at is a line with what it costs and what mends it.

Stands on planning, pages, host and instance; looks at /proc, /sys and the run directories. Nothing of it is needed to
run an instance, and nothing here changes the host but `fix`, through a journal of its own.
"""
