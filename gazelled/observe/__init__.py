# SPDX-License-Identifier: MulanPSL-2.0
"""What a person is shown: plans, NICs, the status of an instance, where time goes, which path sockets took.

Reads the run directory, the pages and /proc; changes nothing. Stands on instance and what that stands on.
"""
