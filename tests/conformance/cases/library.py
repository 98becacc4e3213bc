# SPDX-License-Identifier: MulanPSL-2.0
"""Sockets as Python's library uses them: objects, time-outs, selectors, asyncio."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from collections.abc import Callable

from conformance.env import T
from conformance.registry import DIAL, LISTEN, PAIR, SOLO, case, table


def _error(t: T, what: str, function: Callable[[], object]) -> None:
    try:
        value = function()
        t.note(what, value if isinstance(value, (int, str, bytes)) else "ok")
    except OSError as error:
        t.note(what, f"{type(error).__name__} {error.errno}")


@case(DIAL)
def python_create_connection(t: T) -> None:
    listener, address = t.listener(end=t.peer)
    with socket.create_connection(address, timeout=2) as s:  # type: ignore[arg-type]
        s.sendall(b"hello")
        p = t.accepted(listener, "p")
        p.recv()
        p.send(b"hi")
        t.note("received", s.recv(10))
        s.settimeout(0.03)
        _error(t, "recv", lambda: s.recv(10))
    p.wait(0x2000)


@case(DIAL)
def python_connect_ex(t: T) -> None:
    with socket.socket() as s:
        t.note("refused", s.connect_ex((t.there, t.port())))
    with socket.socket() as s:
        s.settimeout(1)
        t.note("refused", s.connect_ex((t.there, t.port())))


@case(LISTEN)
def python_create_server(t: T) -> None:
    port = t.port()
    with socket.create_server((t.here, port)) as server:
        p = t.dial((t.here, port))
        accepted, _ = server.accept()
        with accepted:
            p.send(b"x")
            t.note("received", accepted.recv(10))
            t.note("timeout", str(accepted.gettimeout()))
        server.settimeout(0.03)
        _error(t, "accept", server.accept)


@case()
def python_makefile(t: T) -> None:
    s, p = t.pair()
    with socket.socket(fileno=s.quietly("dup")) as python, python.makefile("rwb") as stream:
        stream.write(b"GET / HTTP/1.0\r\n\r\n")
        stream.flush()
        p.queued(18)
        p.recv()
        p.send(b"200\nbody")
        p.close()
        t.note("first line", stream.readline())
        t.note("rest", stream.read())


@case()
def python_detach_and_family(t: T) -> None:
    s, _ = t.pair()
    python = socket.socket(fileno=s.quietly("dup"))
    t.note("family", python.family.name)
    t.note("type", python.type.name)
    t.note("proto", python.proto)
    fd = python.detach()
    t.me.run("close", fd)


@table({"epoll": (selectors.EpollSelector,), "poll": (selectors.PollSelector,), "select": (selectors.SelectSelector,)})
def python_selector(t: T, kind: type[selectors.BaseSelector]) -> None:
    s, p = t.pair()
    with kind() as selector:
        selector.register(s.fd, selectors.EVENT_READ | selectors.EVENT_WRITE)
        t.note("ready", [events for _, events in selector.select(0)])
        p.send(b"x")
        selector.modify(s.fd, selectors.EVENT_READ)
        t.note("ready", [events for _, events in selector.select(2)])
        s.recv()
        t.note("ready", [events for _, events in selector.select(0.01)])


@case(LISTEN)
def python_asyncio_echo_server(t: T) -> None:
    port = t.port()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data.upper())
            await writer.drain()
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(echo, t.here, port)
        async with server:
            client = await asyncio.to_thread(t.dial, (t.here, port))
            for word in (b"one", b"two"):
                await asyncio.to_thread(client.quietly, "send", word)
                t.note("echo", await asyncio.to_thread(client.quietly, "recv", 10))
            await asyncio.to_thread(client.quietly, "shutdown", 1)
            t.note("end", await asyncio.to_thread(client.quietly, "recv", 10))

    asyncio.run(serve())


@case(DIAL)
def python_asyncio_client(t: T) -> None:
    listener, address = t.listener(end=t.peer)

    async def talk() -> None:
        reader, writer = await asyncio.open_connection(*address)
        p = await asyncio.to_thread(t.accepted, listener, "p")
        writer.write(b"x" * 50_000)
        got = asyncio.create_task(asyncio.to_thread(p.quietly, "recv_all", 50_000, 65536))
        await writer.drain()
        t.note("bytes", (await got)[0])
        await asyncio.to_thread(p.quietly, "send", b"done\n")
        t.note("line", await reader.readline())
        await asyncio.to_thread(p.quietly, "close")
        t.note("end", await reader.read())
        writer.close()
        await writer.wait_closed()

    asyncio.run(talk())


@case(SOLO)
def python_threads_echo_to_themselves(t: T) -> None:
    with socket.create_server((t.here, t.port())) as server:
        address = server.getsockname()

        def serve() -> None:
            for _ in range(3):
                accepted, _ = server.accept()
                with accepted:
                    accepted.sendall(accepted.recv(100)[::-1])

        thread = threading.Thread(target=serve)
        thread.start()
        for word in (b"abc", b"defg", b"hi"):
            with socket.create_connection(address, timeout=3) as s:
                s.sendall(word)
                t.note("reversed", s.recv(100))
        thread.join(3)


@case(PAIR)
def python_sendall_and_recv_into(t: T) -> None:
    s, p = t.pair()
    p.begin("recv_all", 500_000, 65536)
    with socket.socket(fileno=s.quietly("dup")) as python:
        python.settimeout(3)
        python.sendall(bytes(500_000))
        p.finish("recv_all")
        p.begin("send_all", 100_000, 1, 65536)
        buffer, got = bytearray(100_000), 0
        while got < len(buffer):
            got += python.recv_into(memoryview(buffer)[got:])
        t.note("received", bytes(buffer))
        p.finish("send_all")
