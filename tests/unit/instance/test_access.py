# SPDX-License-Identifier: MulanPSL-2.0
"""Who may attach: from the configuration's words to numbers, modes and sentences."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.instance import access
from gazelled.instance.access import Access
from gazelled.planning.plan import SecurityPlan


def security(
    *, everybody: bool = False, users: tuple[str | int, ...] = (), groups: tuple[str | int, ...] = ()
) -> SecurityPlan:
    return SecurityPlan(everybody, users, groups, "connect")


def test_names_and_numbers_become_numbers() -> None:
    found = access.resolve(security(users=("root", 1234), groups=("root", 77)), own_gid=5)
    assert (set(found.uids) - {os.geteuid()}, found.gids) == ({0, 1234} - {os.geteuid()}, (0, 77))


def test_a_name_that_is_gone_is_an_error_of_the_configuration() -> None:
    with pytest.raises(GazelledError, match=r"security\.allow_users: there is no user no-such-user") as caught:
        access.resolve(security(users=("no-such-user",)), own_gid=5)
    assert caught.value.exit_code == ExitCode.CONFIG


@pytest.mark.parametrize(
    ("who", "private"),
    [
        (Access(False, (), (5,), 5), True),
        (Access(False, (), (), 5), True),
        (Access(False, (7,), (5,), 5), False),
        (Access(False, (), (5, 6), 5), False),
        (Access(True, (), (), 5), False),
    ],
)
def test_files_are_one_groups_if_nobody_else_is_named(who: Access, private: bool) -> None:
    assert who.private is private


def test_a_directory_is_closed_to_all_but_those_who_may(tmp_path: Path) -> None:
    access.close_directory(tmp_path, Access(True, (), (), os.getegid()))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    access.close_directory(tmp_path, Access(False, (), (), os.getegid()))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750
    assert access.shut_out_groups(tmp_path) == ["gazelle"]
    access.close_directory(tmp_path, Access(False, (61001,), (61002,), os.getegid()))
    acl = os.getxattr(tmp_path, "system.posix_acl_access")
    entries = [struct.unpack_from("<HHI", acl, at) for at in range(4, len(acl), 8)]
    assert (2, 5, 61001) in entries
    assert (8, 5, 61002) in entries
    assert (0x20, 0, 0xFFFFFFFF) in entries
    assert access.shut_out_groups(tmp_path) == []
    # By another configuration: what the last one gave does not stay.
    access.close_directory(tmp_path, Access(False, (), (), os.getegid()))
    assert (stat.S_IMODE(tmp_path.stat().st_mode), access.shut_out_groups(tmp_path)) == (0o750, ["gazelle"])


def test_who_may_attach_in_words() -> None:
    assert access.attachers(security(everybody=True)).startswith("everybody on this host; ")
    named = access.attachers(security(users=("www-data", 12), groups=("gazelle",)))
    assert named.startswith("root, user www-data, user 12, members of group gazelle; ")
    assert named.endswith("connect, not listen")


def test_a_refusal_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 61001)
    error = access.refusal("default", ["gazelle"])
    assert (error.message, error.hint, error.exit_code) == (
        "user 61001 may not attach to instance default",
        "`adduser 61001 gazelle`, then log in again",
        ExitCode.PERMISSION,
    )
    assert "allow_users" in str(access.refusal("default", []).hint)
