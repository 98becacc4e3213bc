# SPDX-License-Identifier: MulanPSL-2.0
"""Who may attach: said in words, as numbers for the group page, and as modes of the run directory.

The worker decides, by the credentials that the kernel gives of a connecting process. The run directory is closed to all
other users: they are not to read what the instance shows of itself.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.configuration.settings import OWN_NAME
from gazelled.planning.plan import SecurityPlan

_ACL = "system.posix_acl_access"
_ACL_VERSION = 2
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_READ, _SEARCH = 4, 1
_ALL = 7
_NO_ID = 0xFFFFFFFF


@dataclass(frozen=True)
class Access:
    """Who may attach, as numbers. `own_gid`: the group of workers, which must reach the run directory, too."""

    everybody: bool
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    own_gid: int

    @property
    def private(self) -> bool:
        """Tell whether one group owns all: then every single file in the run directory is for its members only."""
        return not self.everybody and not self.uids and set(self.gids) <= {self.own_gid}


def resolve(security: SecurityPlan, own_gid: int) -> Access:
    """Look the names up; GazelledError if there is none of that name any more."""
    mine = (
        (os.geteuid(),) if os.geteuid() else ()
    )  # root always may; a user who starts an instance without root may use it, too
    users = (*mine, *(_number(user, "user") for user in security.users))
    # Without root an instance serves the user who started it; a group of that name is not needed then.
    wanted = [group for group in security.groups if not (mine and group == OWN_NAME and not _exists(group))]
    groups = tuple(_number(group, "group") for group in wanted)
    return Access(security.everybody, tuple(dict.fromkeys(users)), tuple(dict.fromkeys(groups)), own_gid)


def _number(name: str | int, what: str) -> int:
    if isinstance(name, int):
        return name
    try:
        return pwd.getpwnam(name).pw_uid if what == "user" else grp.getgrnam(name).gr_gid
    except KeyError:
        raise GazelledError(
            f"security.allow_{what}s: there is no {what} {name}",
            hint=f"`add{what} --system {name}` makes it",
            exit_code=ExitCode.CONFIG,
        ) from None


def _exists(group: str | int) -> bool:
    return any(each.gr_name == group for each in grp.getgrall())


def attachers(security: SecurityPlan) -> str:
    """Say who may attach."""
    if security.everybody:
        who = "everybody on this host"
    else:
        users = [f"user {user}" for user in security.users]
        who = ", ".join(["root", *users, *(f"members of group {group}" for group in security.groups)])
    own = "connect and listen" if security.foreign_namespaces == "listen" else "connect, not listen"
    return f"{who}; programs of other network namespaces {own}"


def close_directory(path: Path, access: Access) -> None:
    """Open the run directory to the users who may attach, and close it to all others, whatever it allowed before."""
    if _ACL in os.listxattr(path):
        os.removexattr(path, _ACL)
    if access.everybody:
        path.chmod(0o755)
        return
    if os.geteuid() == 0:
        os.chown(path, 0, access.own_gid)
    path.chmod(0o750)
    users = sorted(set(access.uids) - {os.geteuid()})
    groups = sorted(set(access.gids) - {path.stat().st_gid})
    if not users and not groups:
        return
    try:
        os.setxattr(path, _ACL, _acl(users, groups))
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        raise GazelledError(
            f"{path}: this file system has no access control lists, which more than one user or group needs",
            hint=f'allow_groups = ["{OWN_NAME}"] alone needs none; or mount a tmpfs there',
        ) from error


def share_files(path: Path, access: Access) -> None:
    """Open the files of a run directory in use to those who may attach, as they are when they are made anew."""
    gid = access.own_gid if access.private else None
    for pattern, mode in (("group.[0-9]*", 0o640), ("worker.*.page", 0o640), ("worker.*.sock", 0o660)):
        for file in path.glob(pattern):
            if gid is not None:
                os.chown(file, -1, gid)
            file.chmod(mode if gid is not None else mode | (mode >> 3 & 0o007))


def _acl(users: list[int], groups: list[int]) -> bytes:
    """Return a directory's access list as the kernel has it: all for its owner, reading for its group and for these."""
    read = _READ | _SEARCH
    entries = [
        (_USER_OBJ, _ALL, _NO_ID),
        *((_USER, read, uid) for uid in users),
        (_GROUP_OBJ, read, _NO_ID),
        *((_GROUP, read, gid) for gid in groups),
        (_MASK, read, _NO_ID),
        (_OTHER, 0, _NO_ID),
    ]
    return struct.pack("<I", _ACL_VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def may_attach(security: SecurityPlan) -> bool:
    """Tell whether a program that we start may attach, as far as names tell; the worker has the last word."""
    uid = os.geteuid()
    if security.everybody or uid == 0:
        return True
    gids = {os.getegid(), *os.getgroups()}
    return any(_is(uid, user, "user") for user in security.users) or any(
        _is(gid, group, "group") for gid in gids for group in security.groups
    )


def _is(number: int, name: str | int, what: str) -> bool:
    try:
        return number == _number(name, what)
    except GazelledError:
        return False


def shut_out_groups(path: Path) -> Sequence[str]:
    """Return the groups whose members may enter a run directory that is closed to us, if it tells."""
    return [] if _ACL in os.listxattr(path) else [OWN_NAME]


def refusal(instance: str, groups: Sequence[str | int]) -> GazelledError:
    """Return what to tell a user who may not attach, while members of these groups may."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    if groups:
        hint = f"`adduser {name} {groups[0]}`, then log in again"
    else:
        hint = f"[security] in the configuration of instance {instance} says who may: allow_users, allow_groups"
    return GazelledError(f"user {name} may not attach to instance {instance}", hint=hint, exit_code=ExitCode.PERMISSION)
