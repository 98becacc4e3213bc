# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled connections` says what the kernel on the other side says of the same connections.

python client -- kernel -- tap -- 2 workers -- redis-server
python client -- kernel -- veth -- frame_relay, which loses one frame in 50 -- veth -- af_xdp worker -- server
"""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
from contextlib import suppress
from typing import Any

from kit import schemas
from kit.instance import Instance, on_tap, on_veth, started
from kit.lab import REPOSITORY, Kit
from kit.redis import PORT, start_redis
from kit.strangers import STRANGER, Installed, as_user
from kit.waiting import until

from gazelled.instance.worker_control import CONNECTIONS, message

# Opens connections, has each PING answered so many times, then waits.
PINGS = """
import socket, sys
host, port, count, pings = sys.argv[1], *map(int, sys.argv[2:])
peers = [socket.create_connection((host, port), timeout=20) for _ in range(count)]
for number, peer in enumerate(peers):
    for _ in range(pings + number):
        peer.sendall(b"PING\\r\\n")
        while not peer.recv(100).endswith(b"\\n"):
            pass
print("answered", flush=True)
sys.stdin.read()
"""
# Sends blocks to the client that asks for them, and keeps the connection.
BLOCKS = """
import socket
server = socket.create_server(("0.0.0.0", 7200))
print("listening", flush=True)
peer = server.accept()[0]
blocks = int(peer.recv(10))
for _ in range(blocks):
    peer.sendall(bytes(65536))
peer.recv(1)
"""
TAKE = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 7200), timeout=30)
peer.sendall(sys.argv[2].encode())
left = int(sys.argv[2]) * 65536
while left:
    left -= len(peer.recv(left))
print("answered", flush=True)
sys.stdin.read()
"""


def said(instance: Instance, *options: str) -> dict[str, Any]:
    done = instance.call("connections", "--json", *options)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = schemas.valid("connections", done.stdout)
    return report


def kernel_says(instance: Instance, port: int) -> dict[int, dict[str, int]]:
    """Return what `ss -ti` counts, by the local port."""
    found = {}
    for line in instance.client.run("ss", "-OtinH", "dst", f"{instance.address}:{port}").splitlines():
        local = int(line.split()[3].rsplit(":", 1)[1])
        found[local] = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)(?= |$)", line)}
    return found


def by_peer(report: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {row["peer_port"]: row for row in report["connections"] if row["kind"] == "tcp"}


def waiting(kit: Kit, instance: Instance, program: str, *arguments: str) -> None:
    """Start a client that has said "answered" when this returns, and stays."""
    kit.spawn(instance.client, "sh", "-c", 'sleep 60 | exec "$@"', "-", sys.executable, "-c", program, *arguments).said(
        "answered", 30
    )


def ask_without_listening(instance: Instance, cursor: int) -> None:
    """Ask a worker until it has had enough."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asker:
        asker.settimeout(10)
        asker.connect(str(instance.run_dir / "worker.0.sock"))
        with suppress(BrokenPipeError, ConnectionResetError):
            while True:
                asker.send(message(CONNECTIONS, cursor=cursor))


def test_it_says_of_each_connection_what_the_kernel_says(kit: Kit) -> None:
    instance = started(kit, "tap", 2)
    redis = start_redis(instance)
    until(lambda: said(instance, "--state", "established")["totals"]["tcp"] == 0, "the first PING's end")
    waiting(kit, instance, PINGS, instance.address, str(PORT), "8", "20")

    def quiet() -> dict[str, Any] | None:
        report = said(instance, "--port", str(PORT), "--state", "established")
        return report if all(not row["tx_queued"] for row in report["connections"]) else None

    report = until(quiet, "the last acknowledgement")
    assert report is not None
    ours, kernel = by_peer(report), kernel_says(instance, PORT)
    assert set(ours) == set(kernel)
    assert len(ours) == 8
    for port, row in ours.items():
        assert (row["program"], row["pid"], row["holder"]) == ("redis-server", redis.pid, "program")
        assert row["bytes_received"] == kernel[port]["bytes_acked"] - 1  # its SYN counts as one
        assert row["bytes_acked"] == kernel[port]["bytes_received"]
        assert abs(row["segments_in"] - kernel[port]["segs_out"]) <= 2  # the handshake
        assert abs(row["segments_out"] - kernel[port]["segs_in"]) <= 2
        assert row["retransmits"] == 0
        assert 0 < row["rtt_us"] < 5_000_000
        assert row["local_port"] == PORT
    assert report["totals"]["bytes_acked"] == sum(each["bytes_received"] for each in kernel.values())
    assert report["unanswered"] == []
    assert {row["queue"] for row in said(instance, "--state", "listen")["connections"]} == {0, 1}
    assert said(instance, "--program", "redis-server", "--port", "1")["connections"] == []
    shown = instance.call("ss", "--sort", "bytes_acked", "--program", str(redis.pid)).stdout.splitlines()
    assert shown[-1] == "8 TCP, 2 listeners, 0 UDP, 0 ends of same-host pairs"
    for cursor in (0, 1 << 63, (1 << 56) + (0xFFFFFF << 32), (1 << 32) - 1, 2 << 56 | 0xFFFF):
        ask_without_listening(instance, cursor)
    assert len(by_peer(said(instance, "--state", "established"))) == 8
    assert [instance.worker(queue)["restarts"] for queue in (0, 1)] == [0, 0]
    instance.stop()


def test_segments_that_the_wire_lost_are_counted(kit: Kit) -> None:
    instance = on_veth(kit, 1, relayed=True)
    assert instance.middle is not None
    instance.start()
    relay_program = REPOSITORY / "build/tests/frame_relay"
    relay = kit.spawn(instance.middle, str(relay_program), "--a", "ma", "--b", "mb", "--seed", "7", "--loss", "0.02")
    relay.said("relaying")
    instance.spawn(sys.executable, "-c", BLOCKS).said("listening")
    waiting(kit, instance, TAKE, instance.address, "60")
    ((port, row),) = by_peer(said(instance, "--state", "established")).items()
    kernel = kernel_says(instance, 7200)[port]
    assert row["bytes_acked"] == kernel["bytes_received"] == 60 * 65536
    assert row["retransmits"] > 0
    assert row["slow"] == ["segments are lost"]
    # Each one that was sent came, or was lost and sent again, or its acknowledgement was lost and it was sent again.
    lost = row["segments_out"] - kernel["segs_in"]
    assert 0 < lost <= row["retransmits"] + 2
    assert instance.page(0).counters()["retransmits"] >= row["retransmits"]
    instance.stop()


def test_programs_of_one_host_and_whose_sockets_one_sees(kit: Kit) -> None:
    instance = on_tap(kit, 1)
    instance.start()
    redis = start_redis(instance)
    subscriber = instance.spawn("redis-cli", "-h", instance.address, "SUBSCRIBE", "x")
    subscriber.said("subscribe")
    pairs = [row for row in said(instance)["connections"] if row["kind"] == "pair"]
    assert {(row["pid"], row["local_port"] == PORT, row["state"]) for row in pairs} == {
        (redis.pid, True, "established"),
        (subscriber.pid, False, "established"),
    }
    assert len(pairs) == 2
    assert all(0 <= row["age_ms"] < 60_000 for row in pairs)
    installed = Installed(instance)
    stranger = instance.home.run(*as_user(STRANGER, *installed.argv("connections", "--json")))
    assert json.loads(stranger)["connections"] == []
    redis.popen.send_signal(signal.SIGSTOP)  # what is sent now lies there
    waiting(kit, instance, "import socket, sys\npeer = socket.create_connection((sys.argv[1], 6379))\n"
            "peer.send(b'PING')\nprint('answered', flush=True)\nsys.stdin.read()", instance.address)  # fmt: skip

    def lies() -> list[dict[str, Any]]:
        return [row for row in said(instance, "--slow")["connections"] if row["kind"] == "tcp"]

    (row,) = until(lies, "an unread PING")
    assert (row["holder"], row["rx_queued"], row["slow"]) == ("accept queue", 4, ["the program does not accept it"])
    redis.popen.send_signal(signal.SIGCONT)
    instance.stop()
