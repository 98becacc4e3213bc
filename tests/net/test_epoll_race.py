# SPDX-License-Identifier: MulanPSL-2.0
"""A program closes a socket in the moment another thread puts it into an epoll set: nothing stays in the set."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.instance import started
from kit.lab import Kit, compiled

ROUNDS = 500


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_close_against_epoll_ctl(kit: Kit, kind: str) -> None:
    program = compiled(Path(__file__).with_name("epoll_race.c"), kit.directory)
    instance = started(kit, "tap", 1)
    said = instance.home.run(*instance.attached(str(program), instance.address, kind, str(ROUNDS)), timeout=60)
    done, added = said.split()
    assert done == "done"
    assert int(added) > ROUNDS / 10, "the threads never met"
    instance.stop()
