# SPDX-License-Identifier: MulanPSL-2.0
"""What may stand in a configuration file, and how a person is told what is wrong with one.

gazelled.config is the door to it: it finds and loads the file. Stands on base. Must not know the machine it runs on:
what needs the machine is a finding of the planner.
"""
