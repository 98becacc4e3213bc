# SPDX-License-Identifier: MulanPSL-2.0
"""What every part may use: errors and exit codes, texts and sizes, running a command, waiting, naming a process.

Stands on the standard library and psutil only. Must not know what a configuration, a plan or an instance is.
"""
