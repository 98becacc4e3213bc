# SPDX-License-Identifier: MulanPSL-2.0
"""With the send/recv split, accepted connections live on the recv worker and outgoing ones on the send worker.

                   namespace S
redis-server <- redis-benchmark      curl -> HTTP server
     | liblstack       |               | liblstack   |
lstack_recv_0_0        |      lstack_send_0_0        |
     +--- tap -------- kernel ------ tap ------------+
"""

from __future__ import annotations

from kit.instance import Instance, accelerated, on_tap
from kit.lab import Kit
from kit.redis import load, start_redis
from kit.transfer import curl, digest_of, make_file, serve_in_kernel


def counted(instance: Instance, what: str) -> dict[str, int]:
    return {row["role"]: instance.page(row["queue_id"]).counters()[what] for row in instance.status()["workers"]}


def test_each_kind_of_connection_has_its_own_worker(kit: Kit) -> None:
    instance = on_tap(kit, 2, split=True)
    instance.start()
    start_redis(instance)
    load(instance, 50_000)
    accelerated(instance)
    accepted = counted(instance, "accepted")
    assert accepted["recv"] >= 100
    assert accepted["send"] == 0

    _, expected = make_file(kit.directory, 16)
    serve_in_kernel(instance)
    fetched = kit.directory / "fetched"
    instance.home.run(*instance.attached(*curl(instance.peer, "-o", str(fetched))), timeout=60)
    assert digest_of(fetched) == expected
    connected = counted(instance, "connected")
    assert connected["send"] == 1
    assert connected["recv"] == 0
    instance.stop()
