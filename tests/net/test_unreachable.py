# SPDX-License-Identifier: MulanPSL-2.0
"""Connects that reach nobody end as the kernel's do: no neighbour, no gateway, no route, and what routers say of it.

The same program runs on the kernel first, where there is one beside the stack.
"""

from __future__ import annotations

import sys

from kit.instance import Instance, on_tap, on_uplink
from kit.lab import Kit

PORT = 7400
# All at once, so that it takes as long as the longest: the errno of each.
CONNECT = """
import errno, select, socket, sys, time
began, waiting, poll = time.monotonic(), {}, select.poll()
for to in sys.argv[2:]:
    client = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET)
    client.setblocking(False)
    error = client.connect_ex((to, int(sys.argv[1])))
    if error != errno.EINPROGRESS:
        print(to, errno.errorcode[error], "at once", flush=True)
        continue
    waiting[client.fileno()] = client, to
    poll.register(client, select.POLLOUT)
while waiting and time.monotonic() < began + 15:
    for fd, events in poll.poll(1000):
        client, to = waiting.pop(fd)
        poll.unregister(fd)
        error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        print(to, errno.errorcode.get(error, error), "later", events & select.POLLERR, flush=True)
for client, to in waiting.values():
    print(to, "nothing", flush=True)
"""


def told(output: str) -> list[str]:
    return sorted(output.splitlines())


def connected(instance: Instance, *to: str) -> list[str]:
    client = instance.spawn(sys.executable, "-c", CONNECT, str(PORT), *to)
    assert client.wait(30) == 0, client.output()
    return told(client.output())


def test_beside_the_kernel(kit: Kit) -> None:
    """The other side is a router that knows 10.97.1.0/24 for unreachable, 10.97.2.0/24 for forbidden, 10.97.3.0/24 not.

    Nobody has 10.93.0.250, fd00:93::250 or the gateway of 10.98.0.0/16.
    """
    instance = on_uplink(kit, 2, ipv6=True)
    targets = ("10.93.0.250", "10.98.0.1", "10.50.0.1", "10.97.1.1", "10.97.2.1", "10.97.3.1", "fd00:93::250",
               "fd00:97:1::1", "fd00:97:2::1", "10.93.0.1")  # fmt: skip
    for route in ("10.98.0.0/16 via 10.93.0.251", "10.97.0.0/16 via 10.93.0.1", "fd00:97::/32 via fd00:93::1"):
        instance.home.run("ip", "route", "add", *route.split())
    for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        instance.client.run("sysctl", "-qw", f"{key}=1")
    for kind, number in (("unreachable", 1), ("prohibit", 2)):
        for subnet in (f"10.97.{number}.0/24", f"fd00:97:{number}::/48"):
            instance.client.run("ip", "route", "add", kind, subnet)
    by_kernel = kit.spawn(instance.home, sys.executable, "-c", CONNECT, str(PORT), *targets)
    assert by_kernel.wait(30) == 0, by_kernel.output()
    lines = told(by_kernel.output())
    assert sum("EHOSTUNREACH later 8" in line for line in lines) >= 3, lines  # no neighbours, no gateway
    assert "10.50.0.1 ENETUNREACH at once" in lines, lines
    instance.start()
    assert connected(instance, *targets) == lines
    instance.stop()


def test_on_a_tap(kit: Kit) -> None:
    instance = on_tap(kit, 1, ipv6=True)
    instance.start()
    assert connected(instance, "10.91.0.250", "fd00:91::250") == [
        "10.91.0.250 EHOSTUNREACH later 8",
        "fd00:91::250 EHOSTUNREACH later 8",
    ]
    instance.stop()
