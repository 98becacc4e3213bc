# SPDX-License-Identifier: MulanPSL-2.0
"""A client that notices everything: N connections that echo numbers all the time, and fresh ones beside them.

steady_client.py ADDRESS PORT CONNECTIONS

Speaks redis' ECHO, one request at a time on each connection, and checks each answer. A connection that ends is made
again. Prints "steady" once each connection has had an answer, then "at TIME" ten times a second, and on SIGTERM one
line of JSON. All times are CLOCK_MONOTONIC, the same for all processes.

  lives: one for each connection: its own port, when it was made, when and how it ended, its longest wait and since
         when it waited
  fresh: one for each connect every 20 ms: when it began, when it had its answer or failed, and how it failed
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass, field

FRESH_EVERY_S = 0.02
FRESH_GIVES_UP_S = 3.0


@dataclass
class Life:
    """One connection from connect to its end."""

    slot: int
    made: float
    port: int = 0  # of this end
    ended: float | None = None
    how: str = ""
    answers: int = 0
    longest: float = 0.0
    longest_since: float = 0.0
    waits_since: float | None = None  # the request without an answer

    def waited(self, now: float) -> None:
        """Note that the wait since `waits_since` is over, or still goes on at `now`."""
        if self.waits_since is not None and now - self.waits_since > self.longest:
            self.longest, self.longest_since = now - self.waits_since, self.waits_since


@dataclass
class Fresh:
    """One try of a new client."""

    began: float
    done: float | None = None
    failed: str = ""


@dataclass
class Client:
    """Everything this process knows."""

    address: str
    port: int
    lives: list[Life] = field(default_factory=list)
    fresh: list[Fresh] = field(default_factory=list)

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes) -> None:
        """Send one ECHO and check the answer."""
        writer.write(b"*2\r\n$4\r\nECHO\r\n$%d\r\n%b\r\n" % (len(text), text))
        await writer.drain()
        expected = b"$%d\r\n%b\r\n" % (len(text), text)
        answer = await reader.readexactly(len(expected))
        if answer != expected:
            raise ValueError(f"expected {expected!r}, got {answer!r}")

    async def keep(self, slot: int) -> None:
        """Keep one connection busy, and make it again when it ends."""
        while True:
            life = Life(slot, time.monotonic())
            try:
                reader, writer = await asyncio.open_connection(self.address, self.port)
            except OSError:
                await asyncio.sleep(FRESH_EVERY_S)
                continue
            life.made = time.monotonic()
            life.port = writer.get_extra_info("sockname")[1]
            self.lives.append(life)
            try:
                while True:
                    life.waits_since = time.monotonic()
                    await self.ask(reader, writer, b"%d:%d:%d" % (slot, len(self.lives), life.answers))
                    life.waited(time.monotonic())
                    life.waits_since = None
                    life.answers += 1
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                life.ended, life.how = time.monotonic(), f"{type(error).__name__}: {error}"
                life.waited(life.ended)
                life.waits_since = None
                writer.transport.abort()

    async def connect_afresh(self) -> None:
        """Be a new client once."""
        fresh = Fresh(time.monotonic())
        self.fresh.append(fresh)
        writer = None
        try:
            async with asyncio.timeout(FRESH_GIVES_UP_S):
                reader, writer = await asyncio.open_connection(self.address, self.port)
                await self.ask(reader, writer, b"fresh")
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            fresh.failed = f"{type(error).__name__}: {error}"
        finally:
            fresh.done = time.monotonic()
            if writer is not None:
                writer.close()

    async def report(self, connections: int) -> None:
        """Say when all is well, and then that we live."""
        while sum(1 for life in self.lives if life.answers) < connections:
            await asyncio.sleep(FRESH_EVERY_S)
        print("steady", flush=True)
        while True:
            print(f"at {time.monotonic():.3f}", flush=True)
            await asyncio.sleep(0.1)


async def main(address: str, port: int, connections: int) -> None:
    client, stop = Client(address, port), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tasks = [asyncio.create_task(client.keep(slot)) for slot in range(connections)]
    tasks.append(asyncio.create_task(client.report(connections)))
    probes: set[asyncio.Task[None]] = set()
    while not stop.is_set():
        probe = asyncio.create_task(client.connect_afresh())
        probes.add(probe)
        probe.add_done_callback(probes.discard)
        try:
            await asyncio.wait_for(stop.wait(), FRESH_EVERY_S)
        except TimeoutError:
            continue
    now = time.monotonic()
    for life in client.lives:
        life.waited(now)
    done = [asdict(fresh) for fresh in client.fresh if fresh.done is not None]
    print(json.dumps({"lives": [asdict(life) for life in client.lives], "fresh": done}), flush=True)
    for task in (*tasks, *probes):
        task.cancel()
    await asyncio.gather(*tasks, *probes, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
