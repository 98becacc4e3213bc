# SPDX-License-Identifier: MulanPSL-2.0
"""
Both ends of conversations that are held by forked processes, one round of question and answer after the other.

    fork_talk serve ADDRESS PORT                      a child serves each connection, the parent closes its own
    fork_talk prefork ADDRESS PORT CHILDREN           the children accept, and serve one connection after the other
    fork_talk ask ADDRESS PORT COUNT ROUNDS [fork]    COUNT connections of one process; fork: each used by a child
    fork_talk self ADDRESS PORT ROUNDS                a program that connects to itself; a child has the one end
"""

from __future__ import annotations

import os
import select
import socket
import sys

ANSWER_S = 20


def _wait(sock: socket.socket) -> None:
    """Sleep until there is something to read; by a new epoll set, for a socket the process may have inherited."""
    with select.epoll() as epoll:
        epoll.register(sock, select.EPOLLIN)
        assert epoll.poll(ANSWER_S), "nobody woke us"


def _serve(connection: socket.socket) -> None:
    with connection:
        while True:
            _wait(connection)
            question = connection.recv(100)
            if not question:
                return
            connection.sendall(question.upper())


def _ask(connections: list[socket.socket], rounds: int) -> None:
    for number in range(rounds):
        for index, connection in enumerate(connections):
            question = b"q%d.%d" % (index, number)
            connection.sendall(question)
            _wait(connection)
            answer = connection.recv(100)
            assert answer == question.upper(), (question, answer)


def _in_children(count: int, work: list[socket.socket], rounds: int) -> None:
    children = []
    for index in range(count):
        child = os.fork()
        if not child:
            for other in work:
                if other is not work[index]:
                    other.close()
            _ask([work[index]], rounds)
            os._exit(0)
        children.append(child)
    for connection in work:
        connection.close()
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _listen(address: str, port: int) -> socket.socket:
    listener = socket.create_server((address, port), backlog=64)
    print("ready", flush=True)
    return listener


def main() -> None:
    what, address, port, *rest = sys.argv[1:]
    if what == "serve":
        listener = _listen(address, int(port))
        while True:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                _serve(connection)
                os._exit(0)
            connection.close()
    elif what == "prefork":
        listener = _listen(address, int(port))
        for _ in range(int(rest[0])):
            if not os.fork():
                while True:
                    _serve(listener.accept()[0])
        listener.close()
        os.wait()
    elif what == "ask":
        count, rounds = int(rest[0]), int(rest[1])
        connections = [socket.create_connection((address, int(port)), ANSWER_S) for _ in range(count)]
        if rest[2:]:
            _in_children(count, connections, rounds)
        else:
            _ask(connections, rounds)
        print("done", flush=True)
    else:
        listener = _listen(address, int(port))
        asker = socket.create_connection((address, int(port)), ANSWER_S)
        server, peer = listener.accept()
        assert peer == asker.getsockname(), (peer, asker.getsockname())
        child = os.fork()
        if not child:
            asker.close()
            _serve(server)
            os._exit(0)
        server.close()
        _ask([asker], int(rest[0]))
        asker.close()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print("done", flush=True)


main()
