# SPDX-License-Identifier: MulanPSL-2.0
"""bind and unbind on a fake host (nic_box.py) where every step fails once: each failure leads back."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from nic_box import Box

from gazelled.host.sysfs import Host, read_interface
from gazelled.nics import network
from gazelled.nics.network import capture, read_addresses, read_network, restore

WATCHED = ("open", "os.mkdir", "os.rmdir", "os.remove", "os.truncate", "subprocess.Popen")


def die_at(wanted: int, directory: Path) -> Callable[[], None]:
    """Return what makes this process kill -9 itself before the wanted one of its steps that change or start things."""
    counted = directory / "own steps"

    def install() -> None:
        count = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event not in WATCHED:
                return
            if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                return
            if event == "subprocess.Popen" and not {"-j", "settle"}.isdisjoint(cast(list[str], arguments[1])):
                return  # it only reads: dying here is dying after the step before
            count += 1
            if count == wanted:
                os.write(os.open(counted, os.O_WRONLY | os.O_CREAT), b"met")
                os.kill(os.getpid(), signal.SIGKILL)

        counted.unlink(missing_ok=True)
        sys.addaudithook(hook)

    return install


def bound_host(box: Box) -> Path:
    """Bind eth1 and return a copy of everything, to start anew from."""
    assert box.gazelled("bind", "eth1")[0] == 0
    copy = box.directory / "copy"
    copy.mkdir()
    for name in ("host", "run"):
        shutil.copytree(box.directory / name, copy / name, symlinks=True)
    return copy


def start_anew(box: Box, copy: Path) -> None:
    for name in ("host", "run"):
        shutil.rmtree(box.directory / name)
        shutil.copytree(copy / name, box.directory / name, symlinks=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("action", ["fail", "kill", "orphan"])
def test_trouble_at_every_step_of_bind_leads_back(box: Box, action: str) -> None:
    before = box.state()
    for number in range(1, 100):
        box.trouble(f"{action}:{number}")
        status, said = box.gazelled("bind", "eth1")
        if not box.troubled():
            break
        assert status == (69 if action == "fail" else -signal.SIGKILL), (number, said)
        if action == "fail":
            assert box.state() == before, f"step {number}: a bind that failed left something behind"
        assert box.recover() == [], number
        assert box.state() == before, number
    assert number > 6
    assert status == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("action", ["fail", "kill", "orphan"])
def test_trouble_at_every_step_of_unbind_leads_back(box: Box, action: str) -> None:
    before, unordered = box.state(), box.unordered()
    copy = bound_host(box)
    for number in range(1, 100):
        box.trouble(f"{action}:{number}")
        status, said = box.gazelled("unbind", "eth1")
        if not box.troubled():
            break
        if action == "fail":  # a command that did its work before it failed is no failure
            assert status == 69 or (status == 0 and box.unordered() == unordered), (number, said)
        else:
            assert status == -signal.SIGKILL, (number, said)
        assert box.recover() == [], number
        if action == "fail":  # what came back only now is the last of its kind
            assert box.unordered() == unordered, number
        else:
            assert box.state() == before, number
        start_anew(box, copy)
    assert number > 24
    assert status == 0
    assert box.state() == before


def test_what_cannot_be_put_back_keeps_nothing_else_from_coming_back(box: Box) -> None:
    before = box.kernel.network()["eth1"]
    copy = bound_host(box)
    refused = "`ip addr add 10.1.0.6/24 scope global label eth1 dev eth1` ended with status 1: made to fail"
    for number in range(1, 100):
        box.trouble(f"fail:{number}")
        status, said = box.gazelled("unbind", "eth1")
        if refused in said:
            break
        start_anew(box, copy)
    assert status == 69
    now = box.kernel.network()["eth1"]
    missing = [each["local"] for each in before["addresses"] if each not in now["addresses"]]
    assert missing == ["10.1.0.6"]
    assert [each for each in before["routes"] if each not in now["routes"]] == []


def test_an_address_the_kernel_adds_in_the_meantime_is_no_failure(box: Box) -> None:
    host, before = Host.from_environment(), box.state()
    wanted = capture(read_interface(host, "eth1"), read_network())
    box.environment.setattr(network, "read_addresses", iter([{}, read_addresses()]).__next__)
    restore(host, wanted, "eth1")
    assert box.state() == before


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", ["bind", "unbind"])
def test_killed_before_every_step_of_its_own_it_leads_back(box: Box, command: str) -> None:
    before = box.state()
    copy = None if command == "bind" else bound_host(box)
    for number in range(1, 200):
        status, said = box.gazelled(command, "eth1", before=die_at(number, box.directory))
        if not (box.directory / "own steps").exists():
            break
        assert status == -signal.SIGKILL, (number, said)
        assert box.recover() == [], number
        assert box.state() == before, number
        if copy is not None:
            start_anew(box, copy)
    assert number > (10 if command == "bind" else 25)
    assert status == 0


@pytest.mark.timeout(300)
def test_after_a_killed_bind_bind_and_unbind_still_work(box: Box) -> None:
    before = box.state()
    for number in range(1, 100):
        box.trouble(f"kill:{number}")
        status, _ = box.gazelled("bind", "eth1")
        if not box.troubled():
            break
        box.trouble("none:0")
        for words in (["bind", "eth1"], ["unbind", "eth1"]):
            status, said = box.gazelled(*words)
            assert status == 0, (number, said)
        assert box.state() == before, number
    assert number > 6
