# SPDX-License-Identifier: MulanPSL-2.0
"""What Prometheus is told: the families of metrics, their text, and the process that serves it.

Stands on observe and pages; reads what every command may read. Nothing depends on it but the command, and the
supervisor starts its process by name.
"""
