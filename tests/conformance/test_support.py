# SPDX-License-Identifier: MulanPSL-2.0
"""docs/reference/support.md is true: the library has the functions it lists, and each row is what happens."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import pytest
from support.docs import DOCUMENT, rendered
from support.probes import MODE, disagrees
from support.table import Row, read

from conformance.places import Places
from gazelled.base.native_build import shim_library

TABLE = read()
OLDEST_GLIBC = (2, 34)  # where pthreads and the rest became one library
ASKED_FOR = (
    "socket socketpair bind listen accept accept4 connect shutdown close close_range closefrom dup dup2 dup3 fcntl",
    "fcntl64 ioctl read readv pread preadv recv recvfrom recvmsg recvmmsg write writev send sendto sendmsg sendmmsg",
    "sendfile sendfile64 splice poll ppoll select pselect epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait",
    "epoll_pwait2 getsockname getpeername getsockopt setsockopt fork vfork posix_spawn execve clone syscall fdopen",
    "__read_chk __recv_chk __recvfrom_chk __poll_chk __ppoll_chk",
)


def test_the_page_is_written_from_the_table() -> None:
    text = DOCUMENT.read_text()
    assert rendered(text) == text, "run PYTHONPATH=tests python -m support"


def test_the_library_exports_what_is_listed_and_nothing_else() -> None:
    said = subprocess.run(
        ["nm", "-D", "--defined-only", str(shim_library())], check=True, capture_output=True, text=True
    ).stdout
    exported = {line.split()[2] for line in said.splitlines() if line.split()[1] in "TW"}
    listed = {function.name for function in TABLE.functions if function.interposed}
    assert exported == listed, f"only in the library: {exported - listed}; only in table.toml: {listed - exported}"


def test_the_library_needs_no_newer_c_library_than_older_containers_have() -> None:
    said = subprocess.run(
        ["nm", "-D", "--undefined-only", str(shim_library())], check=True, capture_output=True, text=True
    ).stdout
    needed = {(int(each[1]), int(each[2]), each[0]) for each in re.findall(r"(\S+@GLIBC_(\d+)\.(\d+))", said)}
    assert needed
    assert [symbol for major, minor, symbol in sorted(needed) if (major, minor) > OLDEST_GLIBC] == []


def test_every_function_that_must_be_listed_is() -> None:
    assert set(" ".join(ASKED_FOR).split()) <= {function.name for function in TABLE.functions}


def test_the_functions_that_are_not_interposed_exist() -> None:
    library = ctypes.CDLL(None)
    not_in_libc = {"io_uring_setup", "io_submit"}  # system calls without a wrapper
    absent = [f.name for f in TABLE.functions if f.name not in not_in_libc and not hasattr(library, f.name)]
    assert not absent


def test_the_system_calls_listed_are_those_the_shim_knows() -> None:
    source = (Path(__file__).parents[2] / "native" / "shim" / "api" / "api_process.c").read_text()
    assert sorted(TABLE.numbers) == sorted(re.findall(r"case SYS_(\w+):", source))


@pytest.mark.parametrize("row", TABLE.rows, ids=[row.case.removeprefix("support ") for row in TABLE.rows])
def test_a_row_is_what_happens(places: Places, row: Row) -> None:
    for _ in range(3):  # as with the cases: what does not come again was a matter of time
        wrong = disagrees(row, *places.run(row.case, MODE))
        if not wrong:
            break
    assert not wrong, f"{wrong}\nif that is how it should be, edit tests/support/table.toml and run python -m support"
