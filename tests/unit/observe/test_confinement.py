# SPDX-License-Identifier: MulanPSL-2.0
"""What `status` says of a worker's rights is what the kernel says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gazelled.observe.confinement import Confinement

STATUS = """Name:\tgazellelstack00
Uid:\t{uid}\t{uid}\t{uid}\t{uid}
NoNewPrivs:\t1
Seccomp:\t{seccomp}
CapInh:\t0000000000000000
CapPrm:\t{permitted}
CapEff:\t{permitted}
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
"""


@pytest.mark.parametrize(
    ("uid", "permitted", "seccomp", "said"),
    [
        (0, "0", "2", "user root, no capabilities, seccomp on"),
        (61001, "0000000000003000", "0", "user 61001, capabilities 0x3000, seccomp off"),
    ],
)
def test_rights_in_a_few_words(tmp_path: Path, uid: int, permitted: str, seccomp: str, said: str) -> None:
    (tmp_path / "9").mkdir()
    (tmp_path / "9/status").write_text(STATUS.format(uid=uid, permitted=permitted, seccomp=seccomp))
    found = Confinement.of(9, tmp_path)
    assert found is not None
    assert found.describe() == said


def test_nothing_is_claimed_of_what_cannot_be_read(tmp_path: Path) -> None:
    assert Confinement.of(9, tmp_path) is None
    (tmp_path / "9").mkdir()
    (tmp_path / "9/status").write_text("Name:\tx\n")
    assert Confinement.of(9, tmp_path) is None
    assert Confinement.of(os.getpid()) is not None
