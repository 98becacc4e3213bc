# SPDX-License-Identifier: MulanPSL-2.0
"""The commands, a module per noun; gazelled.cli loads each only when it is called."""
