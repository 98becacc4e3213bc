# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled connections` without a worker: what a record means, who is slow, what is picked and in which order."""

from __future__ import annotations

from typing import Any

import pytest
from kit import schemas
from kit.lab import REPOSITORY

from gazelled.observe import connections
from gazelled.observe.connections_view import lines

HERE, PEER = b"\0" * 10 + b"\xff\xff" + b"\x0a\x5b\0\2", b"\0" * 10 + b"\xff\xff" + b"\x0a\x5b\0\1"
_RECORD: dict[str, Any] = {
    **dict.fromkeys(connections.FIELDS, 0),
    "kind": 1, "state": 4, "local_port": 6379, "peer_port": 40000, "local_addr": HERE, "peer_addr": PEER,
    "rx_room": 65536, "tx_room": 65536, "send_window": 64000, "mss": 1448, "segments_out": 100,
}  # fmt: skip


def row(**differs: Any) -> connections.Connection:
    return connections._row(3, tuple({**_RECORD, **differs}.values()))


def test_the_schema_in_the_docs_is_that_of_the_code() -> None:
    file = REPOSITORY / "docs/reference/connections.schema.json"
    assert file.read_text() == schemas.text("connections"), "PYTHONPATH=tests python -m kit.schemas writes it"


def test_addresses_are_of_their_family_and_any_is_none() -> None:
    assert (row()["local_address"], row()["peer_address"]) == ("10.91.0.2", "10.91.0.1")
    listener = row(kind=2, local_addr=bytes(16), peer_addr=bytes(16), peer_port=0, v6=1)
    assert (listener["local_address"], listener["peer_address"], listener["state"]) == (None, None, "listen")
    assert row(v6=1, local_addr=b"\xfd" + bytes(14) + b"\1")["local_address"] == "fd00::1"


@pytest.mark.parametrize(
    ("differs", "why"),
    [
        ({}, []),
        ({"rx_queued": 10}, []),
        ({"rx_queued": 10, "idle_ms": 500}, ["the program does not read"]),
        ({"rx_queued": 40000}, ["the program does not read"]),
        ({"rx_queued": 10, "idle_ms": 500, "flags": 1}, ["the program does not accept it"]),
        ({"tx_queued": 10, "send_window": 0}, ["the peer does not read"]),
        ({"tx_queued": 10, "idle_ms": 500}, ["the peer does not acknowledge"]),
        ({"retransmits": 2}, ["segments are lost"]),
        ({"retransmits": 1}, []),
        ({"kind": 2, "rx_queued": 129, "rx_room": 128}, ["the program does not accept"]),
        ({"kind": 3, "rx_queued": 40000}, ["the program does not read"]),
    ],
)
def test_who_is_waited_for(differs: dict[str, Any], why: list[str]) -> None:
    assert row(**differs)["slow"] == why


def test_what_is_picked_and_in_which_order() -> None:
    rows = [row(local_port=80, peer_port=1, bytes_acked=5), row(kind=2, local_port=90, peer_port=0, pid=1), row()]
    assert [each["local_port"] for each in connections.ordered(rows, None)] == [90, 80, 6379]
    assert connections.ordered(rows, "bytes_acked")[0]["local_port"] == 80

    def picked(ports: Any = (), programs: Any = (), states: Any = (), slow: bool = False) -> list[int]:
        return [each["local_port"] for each in rows if connections.matches(each, ports, programs, states, slow)]

    assert picked(ports=(1, 90)) == [80, 90]
    assert picked(programs=("1",)) == [90]
    assert picked(states=("listen",)) == [90]
    assert picked(slow=True) == []
    assert connections.totals(rows)["tcp"] == 2


def test_a_line_has_a_column_for_all_and_ends_with_who_is_slow() -> None:
    rows = [row(rx_queued=40000, rtt_us=300, age_ms=3000), row(kind=2, peer_port=0)]
    shown = list(lines(rows, connections.totals(rows), [1]))
    assert shown[1].split()[:7] == ["tcp", "established", "3", "39K", "0", "10.91.0.2:6379", "10.91.0.1:40000"]
    assert shown[1].endswith("the program does not read")
    assert "300us" in shown[1]
    assert shown[-1].endswith("1 wait for somebody; worker 1 could not be asked")
