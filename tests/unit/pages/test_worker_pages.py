# SPDX-License-Identifier: MulanPSL-2.0
"""Group page and worker page: Python sees shared memory as C does, and what is packed is what was planned."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from fake_native import compile_c, fake_native
from machines import machine, plain, split

from gazelled.configuration.settings import ALLOWED_MAX
from gazelled.instance import worker_control
from gazelled.instance.access import Access
from gazelled.instance.planned_page import planned_page
from gazelled.observe import connections, explain
from gazelled.pages import counters, group_page, pair_memory, run_memory, worker_page
from gazelled.pages.worker_page import WorkerPage, WorkerPageState
from gazelled.queue_planner import plan


@pytest.fixture(scope="module")
def abi() -> dict[str, Any]:
    """What the compiler makes of native/include/gazelle."""
    lstack = fake_native() / "lstack/lstack"
    said = subprocess.run([lstack, "--abi"], check=True, capture_output=True, timeout=10).stdout
    data: dict[str, Any] = json.loads(said)
    return data


def test_python_and_c_agree_on_every_offset(abi: dict[str, Any]) -> None:
    ours = {**group_page.layout(), **worker_page.layout(), **worker_control.layout(), **explain.layout()}
    ours |= {**connections.layout(), **pair_memory.layout()}
    theirs = {name: (struct["size"], struct["fields"]) for name, struct in abi["structs"].items()}
    assert ours == theirs
    assert abi["abi_version"] == group_page.ABI_VERSION == worker_page.ABI_VERSION


def test_python_and_c_agree_on_the_counters(abi: dict[str, Any]) -> None:
    assert [list(astuple(counter)) for counter in counters.COUNTERS] == abi["counters"]


def test_python_and_c_agree_on_the_memory_of_the_run_directory(abi: dict[str, Any]) -> None:
    assert [run_memory.rings_bytes(workers) for workers in range(1, 129)] == abi["rings_bytes"]
    assert abi["flows_bytes"] == run_memory.FLOWS_BYTES


def test_the_run_directory_stays_reasonable() -> None:
    needs = {workers: run_memory.run_dir_bytes(workers, 1) / 2**20 for workers in (1, 2, 4, 8, 16, 128)}
    assert needs[1] < 0.75
    assert needs[2] < 3.5
    assert all(need < 16.5 * workers for workers, need in needs.items())


HEADERS = sorted((Path(__file__).parents[3] / "native/include/gazelle").glob("*.h"))


def enumerators(name: str) -> list[str]:
    """Return the names of a C enumeration, wherever it stands in the shared headers."""
    (text,) = (text for header in HEADERS if f"enum {name} {{" in (text := header.read_text()))
    return re.findall(r"^\s*(GZ_\w+)", text.split(f"enum {name} {{")[1].split("}")[0], re.MULTILINE)


def test_python_and_c_agree_on_the_reasons_for_the_kernel() -> None:
    names = [f"GZ_KERNEL_{reason.upper()}" for reason in worker_page.KERNEL_REASONS]
    assert [*names, "GZ_KERNEL_REASONS"] == enumerators("gz_kernel_reason")
    assert set(explain.REASONS) == set(worker_page.KERNEL_REASONS)


def test_python_and_c_agree_on_what_is_explained() -> None:
    names = [f"GZ_EXPLAINED_{kind.upper()}" for kind in explain.KINDS]
    assert [*names, "GZ_EXPLAINED_KINDS"] == enumerators("gz_explained")


def test_python_and_c_agree_on_every_constant(tmp_path: Path) -> None:
    enums = {"ROLE": group_page.Role, "DRIVER": group_page.Driver, "IDLE": group_page.Idle, "WORKER": WorkerPageState}
    constants = {
        "GROUP_MAGIC": group_page.MAGIC,
        "WORKER_MAGIC": worker_page.MAGIC,
        "ATTACH_MAGIC": worker_control.MAGIC,
        "MESSAGE_REFUSED": worker_control.REFUSED,
        "MESSAGE_TRACE": worker_control.TRACE,
        "MESSAGE_CONNECTIONS": worker_control.CONNECTIONS,
        "MESSAGE_DRAIN": worker_control.DRAIN,
        "CONNECTIONS_AT_ONCE": connections.AT_ONCE,
        "CONNECTIONS_END": connections.END,
        "PAIR_MAGIC": pair_memory.MAGIC,
        "PAIR_SOCKS": pair_memory.SOCKS,
        "PAIR_BLOCK": pair_memory.BLOCK,
        **{
            f"STATE_{name.upper().replace('-', '_').replace('SYN_RECV', 'SYN_RCVD')}": state
            for state, name in connections.STATES.items()
        },
        "ABI_VERSION": group_page.ABI_VERSION,
        "WORKERS_MAX": group_page.WORKERS_MAX,
        "RETA_SIZE": group_page.RETA_SIZE,
        "RSS_KEY_SIZE": group_page.RSS_KEY_SIZE,
        "NO_ID": group_page.NO_ID,
        "ALLOWED_MAX": ALLOWED_MAX,
        "LISTENERS_MAX": worker_page.LISTENERS_MAX,
        "APPS_MAX": worker_page.APPS_MAX,
        "KERNEL_REASONS": worker_page.KERNEL_REASONS_SIZE,
        "STAGES": len(worker_page.STAGES),
        "HISTOGRAM_BUCKETS": worker_page.HISTOGRAM_BUCKETS,
        **{f"{name}_{each.name}": each.value for name, enum in enums.items() for each in enum},
    }
    lines = [f"#include <gazelle/{header.name}>" for header in HEADERS if header.name != "uplink.h"]
    lines += [f'_Static_assert(GZ_{name} == {value}ull, "{name}");' for name, value in constants.items()]
    source = tmp_path / "constants.c"
    source.write_text("\n".join(lines) + "\nint main(void) { return 0; }\n")
    compile_c([source], tmp_path / "constants", "-I", str(HEADERS[0].parents[1]))


ROOT_ONLY = Access(everybody=False, uids=(), gids=(), own_gid=8)


def test_a_page_names_those_who_may_attach() -> None:
    some = Access(everybody=False, uids=(7, 33), gids=(8, 100), own_gid=8)
    raw = unpack(group_page.pack(planned_page(plan(plain([0]), machine()), 0, Path("/r"), some)))
    assert (list(raw.allow_uids[: raw.allow_uid_count]), list(raw.allow_gids[: raw.allow_gid_count])) == (
        [7, 33], [8, 100])  # fmt: skip
    assert (raw.allow_everybody, raw.foreign_listen, raw.file_gid) == (0, 0, group_page.NO_ID)


def unpack(data: bytes) -> Any:
    return group_page._GroupPage.from_buffer_copy(data)


def test_a_page_says_what_the_plan_says() -> None:
    planned = plan(split(([0, 1], [2, 3])), machine())
    page = planned_page(
        planned, 0, Path("/run/gazelled/default"), ROOT_ONLY, run_uid=7, run_gid=8, trust_rx_checksum=True
    )
    raw = unpack(group_page.pack(page))
    assert (raw.magic, raw.size, raw.num_queue, raw.tot_queue_num, raw.split) == (group_page.MAGIC, 44920, 4, 4, 1)
    assert ipaddress.IPv4Address(bytes(raw.host_addr_be)) == ipaddress.IPv4Address("172.29.0.2")
    assert ipaddress.IPv4Address(bytes(raw.netmask_be)) == ipaddress.IPv4Address("255.255.255.0")
    assert ipaddress.IPv4Address(bytes(raw.host_peer_be)) == ipaddress.IPv4Address("172.29.0.1")
    assert bytes(raw.gateway_be) == bytes(4)
    assert bytes(raw.host_addr6) == bytes(raw.gateway6) == bytes(raw.host_peer6) == bytes(16)
    assert bytes(raw.mac) != bytes(6)
    assert raw.mac[0] & 3 == 2  # locally administered, unicast
    assert (raw.run_uid, raw.run_gid, raw.trust_rx_checksum) == (7, 8, 1)
    assert (raw.allow_everybody, raw.allow_uid_count, raw.allow_gid_count, raw.file_gid) == (0, 0, 0, 8)
    assert (raw.instance, raw.device, raw.run_dir) == (b"default", b"gz-default", b"/run/gazelled/default")
    for worker, row in zip(planned.workers, raw.workers, strict=False):
        assert (row.queue_id, row.index, row.cpu, row.mbufs) == (
            worker.queue_id, worker.index, worker.cpu, worker.mempool.mbufs)  # fmt: skip
        assert group_page.Role(row.role).name.lower() == worker.role
        assert (row.name.decode(), row.comm.decode(), row.pool.decode()) == (
            worker.name, worker.comm, worker.mempool.name)  # fmt: skip
    assert {queue % 2 for queue in raw.reta} == {0}  # with the split packets are a recv worker's first


def test_the_pages_of_two_processes_differ_in_the_process_only() -> None:
    planned = plan(plain([0, 1], [2, 3]), machine())
    one, two = (unpack(group_page.pack(planned_page(planned, p, Path("/r"), ROOT_ONLY))) for p in (0, 1))
    assert (one.process_index, two.process_index, one.num_queue, one.tot_queue_num) == (0, 1, 2, 4)
    two.process_index = 0
    assert bytes(one) == bytes(two)


def test_what_does_not_fit_is_no_page() -> None:
    page = planned_page(plan(plain([0]), machine()), 0, Path("/r"), ROOT_ONLY)
    row = page.workers[0]
    for broken in (
        replace(page, run_dir=Path("/" + "x" * 120)),
        replace(page, workers=()),
        replace(page, workers=(replace(row, queue_id=1),)),
        replace(page, reta=(1,) * 128),
        replace(page, workers=(replace(row, port_args="x" * 224),)),
        replace(page, mac=b"12345"),
        replace(page, allow_gids=tuple(range(33))),
    ):
        with pytest.raises(ValueError, match=r"fit|workers|order|RETA|MAC|holds"):
            group_page.pack(broken)


@pytest.mark.parametrize(("everybody", "mode"), [(True, 0o644), (False, 0o640)])
def test_a_written_page_is_for_those_to_read_who_may_attach(tmp_path: Path, everybody: bool, mode: int) -> None:
    page = planned_page(plan(plain([0]), machine()), 0, tmp_path, Access(everybody, (), (), os.getegid()))
    path = group_page.write(page)
    assert path == tmp_path / "group.0"
    assert path.read_bytes() == group_page.pack(page)
    assert path.stat().st_mode & 0o777 == mode
    assert group_page.read_version(path) == group_page.ABI_VERSION
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a group page"):
        group_page.read_version(path)


def make_worker_page(path: Path, **fields: int) -> Any:
    """Return a page to be filled in and written by `write`."""
    raw = worker_page._WorkerPage(magic=worker_page.MAGIC, abi_version=1, size=worker_page.SIZE, **fields)
    path.write_bytes(bytes(raw))
    return raw


def test_a_worker_page_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "worker.0.page"
    raw = make_worker_page(path, pid=4711, state=1, heartbeat_ns=2_500_000_000)
    page = WorkerPage(path)
    assert (page.pid, page.state, page.heartbeat) == (4711, WorkerPageState.RUNNING, 2.5)
    raw.heartbeat_ns = 3_000_000_000
    raw.counters[worker_page.COUNTERS.index("connections")] = 17
    raw.apps_end = 6
    raw.apps[5].pid = 99
    raw.apps[5].sockets = 3
    raw.apps[5].kernel[worker_page.KERNEL_REASONS.index("loopback")] = 2
    raw.listeners[8].port_owner = 6379 << 16 | 0x8000 | 5
    path.write_bytes(bytes(raw))  # in place: the mapping follows
    assert page.heartbeat == 3.0
    assert page.counters()["connections"] == 17
    (app,) = page.apps()
    assert (app.pid, app.sockets, app.listeners, app.kernel) == (99, 3, 1, {"loopback": 2})
    page.close()


def test_a_worker_page_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "worker.0.page"
    raw = make_worker_page(path)
    raw.abi_version = 2
    path.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match="found version 2"):
        WorkerPage(path)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="too short"):
        WorkerPage(path)
    with pytest.raises(FileNotFoundError):
        WorkerPage(tmp_path / "nowhere")
