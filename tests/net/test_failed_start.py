# SPDX-License-Identifier: MulanPSL-2.0
"""A start that fails half way leaves the host as it was.

 namespace S                                            namespace C
gzs queue 0: worker 0 opens it
    queue 1: somebody else's AF_XDP socket --- veth ------ gzc
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

from kit.instance import Instance, on_tap, on_veth
from kit.lab import Kit, compiled

OCCUPY = Path(__file__).with_name("occupy_queue.c")


def host(instance: Instance) -> dict[str, object]:
    """Look at everything a start may touch. What other instances do meanwhile does not count."""
    links = instance.home.run("ip", "-d", "link")
    return {
        "links": re.sub(r"(prog/xdp|promiscuity|allmulti).*", "", links),
        "programs": re.findall("prog/xdp.*", links),
        "addresses": instance.home.run("ip", "address"),
        "routes": instance.home.run("ip", "route", "show", "table", "all"),
        "left over": instance.left_over(),
        "files": sorted(str(path) for path in instance.kit.directory.iterdir() if stat.S_ISREG(path.stat().st_mode)),
    }


def test_a_second_worker_without_a_queue_undoes_the_first(kit: Kit) -> None:
    instance = on_veth(kit, 2)
    thief = kit.spawn(instance.home, str(compiled(OCCUPY, kit.directory)), "gzs", "1")
    thief.said("held")
    before = host(instance)
    done = instance.call("start", "-c", str(instance.config))
    assert done.returncode == 69, done.stdout + done.stderr
    assert "gazellelstack01" in done.stderr, done.stderr
    assert "gazellelstack00" not in done.stderr.splitlines()[0], done.stderr
    assert host(instance) == before
    # Nothing stands in the way of another try.
    thief.stop()
    instance.start()
    instance.stop()
    assert host(instance)["links"] == before["links"]


def test_a_subnet_that_is_taken_is_refused_before_anything_is_touched(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    instance.home.run("ip", "link", "add", "gzother", "type", "veth", "peer", "name", "gzend")
    instance.home.run("ip", "address", "add", "10.91.0.7/24", "dev", "gzother")
    for name in ("gzother", "gzend"):
        instance.home.run("ip", "link", "set", name, "up")
    before = host(instance)
    done = instance.call("start", "-c", str(instance.config))
    assert done.returncode == 78, done.stdout + done.stderr
    assert "gzother" in done.stderr, done.stderr
    assert host(instance) == before


def test_five_mistakes_are_five_errors_and_nothing_is_touched(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    instance.config.write_text(
        """[stack]
tcp_conn_cuont = 10
idle = "sometimes"
[[process]]
cpus = "zero"
[port]
rx_queue_size = 1000000
[network]
host_addr = "10.91.0.300/24"
"""
    )
    before = host(instance)
    done = instance.call("start", "-c", str(instance.config))
    assert done.returncode == 78, done.stdout + done.stderr
    lines = re.findall(rf"^error: {re.escape(str(instance.config))}:(\d+):", done.stderr, re.MULTILINE)
    assert sorted(map(int, lines)) == [2, 3, 5, 7, 9], done.stderr
    assert host(instance) == before


def test_start_stop_start_stop_leaves_nothing(kit: Kit) -> None:
    instance = on_tap(kit, 2)
    before = host(instance)
    for _ in range(2):
        instance.start()
        assert instance.call("start", "-c", str(instance.config)).returncode == 0, "the same plan already runs: 0"
        instance.stop()
        assert instance.call("stop").returncode == 0, "nothing to do: 0"
    assert host(instance) == before
