# SPDX-License-Identifier: MulanPSL-2.0
"""gazelled: a user-space TCP/IP stack for unmodified Linux programs, one worker process per queue."""

__version__ = "0.1.0"
