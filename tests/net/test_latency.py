# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled latency` under load: every stage is seen, and the whole lies within the client's round trip."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

from kit.instance import on_tap
from kit.lab import Kit
from kit.redis import PORT, start_redis

from gazelled.observe.latency import trace_request

# One request at a time; prints the longest round trip in nanoseconds when its input ends.
CLIENT = textwrap.dedent("""
    import select, socket, sys, time
    peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    longest = 0
    print("begun", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        before = time.monotonic_ns()
        peer.sendall(b"PING\\r\\n")
        assert peer.recv(100) == b"+PONG\\r\\n"
        longest = max(longest, time.monotonic_ns() - before)
    print(longest)
""")


def test_the_stages_are_the_way_of_a_request(kit: Kit) -> None:
    instance = on_tap(kit, 2)
    instance.start()
    start_redis(instance)
    argv = instance.client.argv(sys.executable, "-c", CLIENT, instance.address, str(PORT))
    client = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    kit.later(client.kill)
    assert client.stdout is not None
    assert client.stdout.readline() == "begun\n"
    done = instance.call("latency", "--seconds", "1", "--json")
    assert done.returncode == 0, done.stderr
    said, _ = client.communicate("\n", timeout=20)
    rows = {row["stage"]: row for row in json.loads(done.stdout)["stages"]}
    total = rows.pop("total")
    assert total["count"] > 10
    for row in rows.values():
        assert abs(total["count"] - row["count"]) < 10, row  # the page was read while more were counted
        assert row["p50_ns"] <= row["p99_ns"] <= row["p999_ns"] <= row["max_ns"], row
        assert row["p99_ns"] <= total["max_ns"], row
    # The client may have its answer before the worker, which gave it away, looks at the clock: not so half of the time.
    assert total["p50_ns"] <= int(said)
    assert sum(row["p50_ns"] for row in rows.values()) <= total["max_ns"]
    instance.stop()


def test_nobody_else_may_trace(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    instance.start()
    start_redis(instance)
    tell = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1]);"
        "s.send(bytes.fromhex(sys.argv[2])); print(s.recv(4096)[12])"
    )
    message = trace_request().hex()
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", tell]
    said = instance.home.run(*user, str(instance.run_dir / "worker.0.sock"), message)
    assert said == "3\n"  # REFUSED
    assert instance.page(0).latency()["total"][0] == 0
    instance.stop()
