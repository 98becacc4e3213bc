# SPDX-License-Identifier: MulanPSL-2.0
"""
Programs of one host that fork: whoever holds a connection is woken, whichever process was told how. The driver "none"
leaves no other way between them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from kit.instance import Instance, on_nothing
from kit.lab import Kit, Process
from kit.waiting import until

PROGRAM = str(Path(__file__).with_name("fork_talk.py"))
PORT = "7200"
CONNECTIONS = 8
ROUNDS = 50
_TALK_S = 60


def talk(instance: Instance, what: str, *rest: str) -> list[str]:
    return instance.attached(sys.executable, PROGRAM, what, instance.address, PORT, *rest)


@pytest.fixture
def instance(kit: Kit) -> Instance:
    made = on_nothing(kit, 1)
    made.start()
    return made


def serve(instance: Instance, what: str, *rest: str) -> Process:
    server = instance.kit.spawn(instance.home, *talk(instance, what, *rest))
    until(lambda: "ready" in server.output(), "the server to listen")
    return server


@pytest.mark.parametrize("children_ask", [False, True], ids=["one-client", "forked-client"])
@pytest.mark.parametrize("server", [("serve",), ("prefork", str(CONNECTIONS))], ids=["fork", "prefork"])
def test_who_holds_a_connection_is_woken(instance: Instance, server: tuple[str, ...], children_ask: bool) -> None:
    serving = serve(instance, *server)
    asking = talk(instance, "ask", str(CONNECTIONS), str(ROUNDS), *(["fork"] if children_ask else []))
    for _ in range(2):  # the second client finds a family that has forked before
        assert "done" in instance.home.run(*asking, timeout=_TALK_S), serving.output()
    instance.stop()


def test_a_program_talks_to_itself(instance: Instance) -> None:
    assert "done" in instance.home.run(*talk(instance, "self", str(ROUNDS)), timeout=_TALK_S)
    instance.stop()
