# SPDX-License-Identifier: MulanPSL-2.0
"""Starting, stopping and recovering an instance from outside, whatever state it is found in.

Stands on the supervisor, the planner, and all they stand on. Must not know the command line.
"""
