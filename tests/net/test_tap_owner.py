# SPDX-License-Identifier: MulanPSL-2.0
"""A queue of the tap is a share of the traffic: nobody but the workers opens one, also not their own user."""

from __future__ import annotations

import os
import pwd
import signal

import pytest
from kit.instance import on_tap, wait_running
from kit.lab import Kit
from kit.strangers import STRANGER, as_user

# 0x5102: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE
OPEN = """
import fcntl, os, struct, sys
fd = os.open("/dev/net/tun", os.O_RDWR)
try:
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), 0x5102))
except OSError as error:
    print(error.strerror)
else:
    print("got a queue")
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_no_other_user_opens_a_queue_of_the_tap(kit: Kit, workers: int) -> None:
    instance = on_tap(kit, workers)
    instance.start()
    workers_own = pwd.getpwnam("gazelle").pw_uid

    def tries() -> set[str]:
        users = (workers_own, pwd.getpwnam("nobody").pw_uid, STRANGER)
        command = ("/usr/bin/python3", "-c", OPEN, instance.device)
        return {instance.home.run(*as_user(uid, *command)).strip() for uid in users}

    assert tries() == {"Operation not permitted"}
    # Root can, so what is refused is the user, not the request.
    assert instance.home.run("/usr/bin/python3", "-c", OPEN, instance.device).strip() == "got a queue"
    # A worker that comes back has its queue, and the tap is as closed as before.
    pid = instance.worker(0)["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_running(instance, 0, pid)
    assert tries() == {"Operation not permitted"}
    assert "0% packet loss" in instance.home.run("ping", "-c", "2", "-i", "0.2", "-W", "2", instance.address)
    instance.stop()
