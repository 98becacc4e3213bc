# SPDX-License-Identifier: MulanPSL-2.0
"""What a service says to systemd (sd_notify(3)); without systemd every call does nothing."""

from __future__ import annotations

import os
import socket


def notify(*assignments: str) -> bool:
    """Send assignments such as "READY=1" to the service manager; False if there is none or it does not listen."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(1.0)
            sock.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False  # a service is not to fail for want of a listener
    return True
