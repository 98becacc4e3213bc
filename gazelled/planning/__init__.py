# SPDX-License-Identifier: MulanPSL-2.0
"""What is decided before anything is done: the plan, the topology it is made for, and the findings about it.

gazelled.queue_planner makes plans of these parts. Stands on base and configuration. Pure: no I/O, no clock, no chance.
"""
