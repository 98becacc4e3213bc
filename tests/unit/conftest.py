# SPDX-License-Identifier: MulanPSL-2.0
"""What a session of unit tests has made once is removed with it, in every process of it; the fake host with NICs."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_commands import COMMANDS, launch
from fake_native import remove_fake_native
from hypothesis import HealthCheck, settings
from nic_box import Box, make_host

# How long an example takes tells what else the machine does, and nothing of what is tested.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_sessionfinish() -> None:
    remove_fake_native()


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    commands = tmp_path / "bin"
    commands.mkdir()
    for command in COMMANDS:
        launch(commands, command)
    monkeypatch.setenv("PATH", str(commands))
    monkeypatch.setenv("GAZELLED_HOST_ROOT", str(tmp_path / "host"))
    monkeypatch.setenv("GAZELLED_RUN_ROOT", str(tmp_path / "run"))
    monkeypatch.setenv("FAKE_COUNT", str(tmp_path / "count"))
    monkeypatch.setenv("FAKE_TROUBLE", "none:0")
    monkeypatch.setenv("FAKE_MODULES", "vfio-pci,uio_pci_generic")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    (tmp_path / "host").mkdir()
    (tmp_path / "run").mkdir()
    return Box(make_host(tmp_path / "host"), tmp_path, monkeypatch)
