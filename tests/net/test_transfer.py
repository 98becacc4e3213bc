# SPDX-License-Identifier: MulanPSL-2.0
"""Large transfers arrive as they were sent, each way, on a good cable and on a bad one.

   namespace S                  namespace M (bad cable only)         namespace C
HTTP server or curl                                               curl or HTTP server
     | liblstack                                                         |
stack, 2 workers                                                      kernel
     |                                                                   |
    gzs ---------- ma  relay: loss, reordering, duplication  mb ------- gzc
    gzs ------------------------------ veth --------------------------- gzc
    tap: both in namespace S
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from kit.instance import accelerated, on_veth, started
from kit.lab import REPOSITORY, Kit, full
from kit.namespaces import Namespace
from kit.transfer import MIB, curl, digest_of, make_file, serve_in_kernel, serve_on_stack
from kit.waiting import until

LARGE = 1024 if full() else 256
LOSSY = 64
AT_LEAST = 1e6  # bytes/s through the bad cable


def exchange(where: Namespace, download: list[str], upload: list[str], fetched: Path, expected: str) -> list[float]:
    """Download and upload; return how long each took."""
    seconds = []
    begin = time.monotonic()
    where.run(*download, timeout=240)
    seconds.append(time.monotonic() - begin)
    assert digest_of(fetched) == expected
    begin = time.monotonic()
    assert where.run(*upload, timeout=240).strip() == expected
    seconds.append(time.monotonic() - begin)
    return seconds


@pytest.mark.parametrize("port", ["tap", "veth"])
def test_a_server_on_the_stack_sends_and_receives_intact(kit: Kit, port: str) -> None:
    file, expected = make_file(kit.directory, LARGE)
    instance = started(kit, port, 2)
    serve_on_stack(instance)
    fetched = kit.directory / "fetched"
    download, upload = (curl(instance.address, *options) for options in (("-o", str(fetched)), ("-T", str(file))))
    exchange(instance.client, download, upload, fetched, expected)
    accelerated(instance)


@pytest.mark.parametrize("port", ["tap", "veth"])
def test_curl_on_the_stack_sends_and_receives_intact(kit: Kit, port: str) -> None:
    file, expected = make_file(kit.directory, LARGE)
    instance = started(kit, port, 2)
    serve_in_kernel(instance)
    fetched = kit.directory / "fetched"
    download, upload = (
        instance.attached(*curl(instance.peer, *options)) for options in (("-o", str(fetched)), ("-T", str(file)))
    )
    exchange(instance.home, download, upload, fetched, expected)
    connected = [instance.page(queue_id).counters()["connected"] for queue_id in range(2)]
    assert sum(connected) == 2, f"connections made by each worker: {connected}"


def test_both_ways_through_a_bad_cable(kit: Kit) -> None:
    file, expected = make_file(kit.directory, LOSSY)
    instance = on_veth(kit, 2, relayed=True)
    assert instance.middle is not None
    relay = kit.spawn(
        instance.middle, str(frame_relay()), "--a", "ma", "--b", "mb", "--seed", "7", "--seconds", "250",
        "--loss", "0.01", "--reorder", "0.01", "--duplicate", "0.01",
    )  # fmt: skip
    relay.said("relaying")
    instance.start()
    serve_on_stack(instance)
    fetched = kit.directory / "fetched"
    download, upload = (curl(instance.address, *options) for options in (("-o", str(fetched)), ("-T", str(file))))
    seconds = exchange(instance.client, download, upload, fetched, expected)
    rates = [LOSSY * MIB / each for each in seconds]
    assert min(rates) >= AT_LEAST, f"bytes/s out and in: {rates}"
    relay.stop()
    counted = json.loads(relay.output().strip().splitlines()[-1])
    for way in ("a_to_b", "b_to_a"):
        assert all(counted[way][what] > 0 for what in ("lost", "reordered", "duplicated")), counted


def frame_relay() -> Path:
    program = REPOSITORY / "build" / "tests" / "frame_relay"
    return until(lambda: program if program.exists() else None, f"{program}: make build", 0) or program
