# SPDX-License-Identifier: MulanPSL-2.0
"""The group page: what the plan fixes, as `struct gz_group_page` of native/include/gazelle/group_page.h.

Written once, before the first worker starts, but for the table of addresses (`follow_own`); read-only to workers and
applications. The classes with a leading underscore repeat the C layout field by field; `lstack --abi` prints the C
side's, and a test compares the two.
"""

from __future__ import annotations

import ctypes
import hashlib
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from gazelled.configuration.settings import ALLOWED_MAX

MAGIC = 0x70756F7267617A67  # "gzagroup"
ABI_VERSION = 1
WORKERS_MAX = 128
RETA_SIZE = 128
RSS_KEY_SIZE = 40
NO_ID = 0xFFFFFFFF
OWN_MAX = 32  # GZ_OWN_MAX
SYMMETRIC_RSS_KEY = bytes.fromhex("6d5a") * (RSS_KEY_SIZE // 2)  # both directions of a flow hash alike


class Role(IntEnum):
    """enum gz_role."""

    BOTH = 0
    RECV = 1
    SEND = 2


class Driver(IntEnum):
    """enum gz_driver: how a worker reaches its port. Every DPDK driver is `ETHDEV`; its EAL arguments say which."""

    TAP = 0
    ETHDEV = 1
    NONE = 2


class Idle(IntEnum):
    """enum gz_idle."""

    ADAPTIVE = 0
    POLL = 1


@dataclass(frozen=True)
class WorkerRow:
    """What the page says of one worker; its position in the page is its queue_id."""

    queue_id: int
    process_index: int
    index: int
    role: Role
    cpu: int | None
    numa: int | None
    mbufs: int
    rx_queue_size: int
    tx_queue_size: int
    name: str
    comm: str
    pool: str
    port_args: str = ""


@dataclass(frozen=True)
class GroupPage:
    """One process's view of the instance; pages of one instance differ in `process_index` only."""

    instance: str
    run_dir: Path
    driver: Driver
    device: str
    host_addr: ipaddress.IPv4Interface
    workers: tuple[WorkerRow, ...]
    process_index: int = 0
    split: bool = False
    idle: Idle = Idle.ADAPTIVE
    spin_us: int = 0
    mtu: int = 1500
    nic_read_number: int = 128
    rpc_number: int = 4
    read_connect_number: int = 4
    trust_rx_checksum: bool = False
    gateway: ipaddress.IPv4Address | None = None
    host_peer: ipaddress.IPv4Address | None = None
    host_addr6: ipaddress.IPv6Address | None = None
    gateway6: ipaddress.IPv6Address | None = None
    host_peer6: ipaddress.IPv6Address | None = None
    mac: bytes = bytes(6)
    run_uid: int = 0
    run_gid: int = 0
    uplink_owners: int = 0  # ids of BPF maps, see gazelled.host.uplink; 0: no uplink
    uplink_alive: int = 0
    uplink_ifindex: int = 0
    own: tuple[str, ...] = ()  # every address of the stack; none: host_addr and host_addr6
    rss_key: bytes = SYMMETRIC_RSS_KEY
    reta: tuple[int, ...] = field(default=())
    allow_everybody: bool = False
    allow_uids: tuple[int, ...] = ()
    allow_gids: tuple[int, ...] = ()
    foreign_listen: bool = False
    file_gid: int | None = (
        None  # the group of the files in the run directory; None: each user who may enter it may read them
    )


class _WorkerPlan(ctypes.Structure):
    _fields_ = [
        ("queue_id", ctypes.c_uint32),
        ("process_index", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
        ("role", ctypes.c_uint32),
        ("cpu", ctypes.c_int32),
        ("numa", ctypes.c_int32),
        ("mbufs", ctypes.c_uint32),
        ("rx_queue_size", ctypes.c_uint32),
        ("tx_queue_size", ctypes.c_uint32),
        ("name", ctypes.c_char * 32),
        ("comm", ctypes.c_char * 16),
        ("pool", ctypes.c_char * 32),
        ("port_args", ctypes.c_char * 224),
    ]


class _GroupPage(ctypes.Structure):
    _fields_ = [
        ("magic", ctypes.c_uint64),
        ("abi_version", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("process_index", ctypes.c_uint32),
        ("num_queue", ctypes.c_uint32),
        ("tot_queue_num", ctypes.c_uint32),
        ("split", ctypes.c_uint32),
        ("driver", ctypes.c_uint32),
        ("idle", ctypes.c_uint32),
        ("spin_us", ctypes.c_uint32),
        ("mtu", ctypes.c_uint32),
        ("nic_read_number", ctypes.c_uint32),
        ("rpc_number", ctypes.c_uint32),
        ("read_connect_number", ctypes.c_uint32),
        ("trust_rx_checksum", ctypes.c_uint32),
        ("host_addr_be", ctypes.c_uint8 * 4),
        ("netmask_be", ctypes.c_uint8 * 4),
        ("gateway_be", ctypes.c_uint8 * 4),
        ("host_peer_be", ctypes.c_uint8 * 4),
        ("mac", ctypes.c_uint8 * 6),
        ("pad0", ctypes.c_uint8 * 2),
        ("host_addr6", ctypes.c_uint8 * 16),
        ("gateway6", ctypes.c_uint8 * 16),
        ("host_peer6", ctypes.c_uint8 * 16),
        ("run_uid", ctypes.c_uint32),
        ("run_gid", ctypes.c_uint32),
        ("uplink_owners", ctypes.c_uint32),
        ("uplink_alive", ctypes.c_uint32),
        ("uplink_ifindex", ctypes.c_uint32),
        ("pad1", ctypes.c_uint32),
        ("own", ctypes.c_uint8 * 16 * OWN_MAX),
        ("instance", ctypes.c_char * 32),
        ("device", ctypes.c_char * 16),
        ("run_dir", ctypes.c_char * 108),
        ("rss_key", ctypes.c_uint8 * RSS_KEY_SIZE),
        ("reta", ctypes.c_uint16 * RETA_SIZE),
        ("allow_everybody", ctypes.c_uint32),
        ("allow_uid_count", ctypes.c_uint32),
        ("allow_gid_count", ctypes.c_uint32),
        ("allow_uids", ctypes.c_uint32 * ALLOWED_MAX),
        ("allow_gids", ctypes.c_uint32 * ALLOWED_MAX),
        ("foreign_listen", ctypes.c_uint32),
        ("file_gid", ctypes.c_uint32),
        ("workers", _WorkerPlan * WORKERS_MAX),
    ]


SIZE = ctypes.sizeof(_GroupPage)
_FOLLOWING = (
    "idle", "spin_us", "nic_read_number", "rpc_number", "read_connect_number", "allow_everybody", "foreign_listen",
    "file_gid",
)  # fmt: skip


def layout() -> dict[str, tuple[int, dict[str, int]]]:
    """Return size and field offsets of both structures, to be compared with `lstack --abi`."""
    return {
        name: (ctypes.sizeof(cls), {row[0]: getattr(cls, row[0]).offset for row in cls._fields_})
        for name, cls in (("gz_worker_plan", _WorkerPlan), ("gz_group_page", _GroupPage))
    }


def default_reta(tot_queue_num: int, split: bool) -> tuple[int, ...]:
    """Spread flows evenly; with the split over the recv workers, which are the even queues."""
    if split:
        return tuple(2 * (bucket % (tot_queue_num // 2)) for bucket in range(RETA_SIZE))
    return tuple(bucket % tot_queue_num for bucket in range(RETA_SIZE))


def local_mac(seed: str) -> bytes:
    """Return a locally administered unicast MAC that is always the same for `seed`."""
    return bytes([0x02]) + hashlib.sha256(seed.encode()).digest()[:5]


# table: one line per field of the C structure
def pack(page: GroupPage) -> bytes:
    """Return the page's bytes. ValueError if something does not fit: the planner has let through what it should not."""
    workers = page.workers
    if not 1 <= len(workers) <= WORKERS_MAX:
        raise ValueError(f"{len(workers)} workers, a group page holds 1 to {WORKERS_MAX}")
    if [worker.queue_id for worker in workers] != list(range(len(workers))):
        raise ValueError("workers are not in the order of their queue_id")
    reta = page.reta or default_reta(len(workers), page.split)
    if len(reta) != RETA_SIZE or not all(0 <= queue < len(workers) for queue in reta):
        raise ValueError(f"the RETA must name {RETA_SIZE} queues below {len(workers)}")
    if len(page.rss_key) != RSS_KEY_SIZE or len(page.mac) != 6:
        raise ValueError("RSS key or MAC of the wrong length")
    if max(len(page.allow_uids), len(page.allow_gids)) > ALLOWED_MAX:
        raise ValueError(f"a group page holds {ALLOWED_MAX} users and as many groups that may attach")
    raw = _GroupPage(
        magic=MAGIC,
        abi_version=ABI_VERSION,
        size=SIZE,
        process_index=page.process_index,
        num_queue=sum(worker.process_index == page.process_index for worker in workers),
        tot_queue_num=len(workers),
        split=page.split,
        driver=page.driver,
        idle=page.idle,
        spin_us=page.spin_us,
        mtu=page.mtu,
        nic_read_number=page.nic_read_number,
        rpc_number=page.rpc_number,
        read_connect_number=page.read_connect_number,
        trust_rx_checksum=page.trust_rx_checksum,
        host_addr_be=tuple(page.host_addr.ip.packed),
        netmask_be=tuple(page.host_addr.netmask.packed),
        gateway_be=tuple(page.gateway.packed if page.gateway else bytes(4)),
        host_peer_be=tuple(page.host_peer.packed if page.host_peer else bytes(4)),
        mac=tuple(page.mac),
        host_addr6=tuple(page.host_addr6.packed if page.host_addr6 else bytes(16)),
        gateway6=tuple(page.gateway6.packed if page.gateway6 else bytes(16)),
        host_peer6=tuple(page.host_peer6.packed if page.host_peer6 else bytes(16)),
        run_uid=page.run_uid,
        run_gid=page.run_gid,
        uplink_owners=page.uplink_owners,
        uplink_alive=page.uplink_alive,
        uplink_ifindex=page.uplink_ifindex,
        instance=_text("instance", page.instance, 32),
        device=_text("device", page.device, 16),
        run_dir=_text("run_dir", str(page.run_dir), 108),
        rss_key=tuple(page.rss_key),
        reta=reta,
        allow_everybody=page.allow_everybody,
        allow_uid_count=len(page.allow_uids),
        allow_gid_count=len(page.allow_gids),
        allow_uids=page.allow_uids,
        allow_gids=page.allow_gids,
        foreign_listen=page.foreign_listen,
        file_gid=NO_ID if page.file_gid is None else page.file_gid,
    )
    for slot, address in enumerate(page.own or _planned(page)):
        raw.own[slot] = (ctypes.c_uint8 * 16)(*_packed(address))
    for worker in workers:
        raw.workers[worker.queue_id] = _WorkerPlan(
            queue_id=worker.queue_id,
            process_index=worker.process_index,
            index=worker.index,
            role=worker.role,
            cpu=-1 if worker.cpu is None else worker.cpu,
            numa=-1 if worker.numa is None else worker.numa,
            mbufs=worker.mbufs,
            rx_queue_size=worker.rx_queue_size,
            tx_queue_size=worker.tx_queue_size,
            name=_text("name", worker.name, 32),
            comm=_text("comm", worker.comm, 16),
            pool=_text("pool", worker.pool, 32),
            port_args=_text("port_args", worker.port_args, 224),
        )
    return bytes(raw)


def write(page: GroupPage) -> Path:
    """Write <run_dir>/group.<process_index>, whole or not at all, and return its path."""
    path = page.run_dir / f"group.{page.process_index}"
    draft = path.with_name(path.name + ".new")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(pack(page))
        if page.file_gid is not None:
            os.fchown(file.fileno(), -1, page.file_gid)
        # Applications map it: those who may attach, whatever our umask is.
        os.fchmod(file.fileno(), 0o644 if page.file_gid is None else 0o640)
    draft.rename(path)
    return path


def follow_plan(page: GroupPage) -> None:
    """Have a page that is in use hold what may change while workers run: budgets, idle policy, who may attach.

    Who looks at a list meanwhile finds it shorter than it was and than it will be, never with somebody else in it.
    """
    raw = pack(page)
    field = {each[0]: getattr(_GroupPage, each[0]) for each in _GroupPage._fields_}
    lists, counts = ("allow_uids", "allow_gids"), ("allow_uid_count", "allow_gid_count")
    with (page.run_dir / f"group.{page.process_index}").open("r+b", buffering=0) as file:
        for count in counts:
            os.pwrite(file.fileno(), bytes(4), field[count].offset)
        for name in (*_FOLLOWING, *lists, *counts):
            at, size = field[name].offset, field[name].size
            os.pwrite(file.fileno(), raw[at : at + size], at)


def _planned(page: GroupPage) -> tuple[str, ...]:
    return (str(page.host_addr.ip), *([str(page.host_addr6)] if page.host_addr6 else []))


def _packed(address: str) -> bytes:
    return ipaddress.IPv6Address(f"::ffff:{address}" if "." in address else address).packed


def follow_own(path: Path, addresses: Sequence[str]) -> list[str]:
    """Have the table of addresses of a page that is in use hold these; return those there is no room for.

    A slot goes from one address to another only by being empty in between, from one call to the next.
    """
    wanted, full = {_packed(address): address for address in addresses}, []
    with path.open("r+b", buffering=0) as file:
        table = os.pread(file.fileno(), 16 * OWN_MAX, _GroupPage.own.offset)
        slots = [table[at : at + 16] for at in range(0, len(table), 16)]
        free = [slot for slot, raw in enumerate(slots) if not any(raw)]
        for slot, raw in enumerate(slots):
            if any(raw) and wanted.pop(raw, None) is None:
                os.pwrite(file.fileno(), bytes(16), _GroupPage.own.offset + 16 * slot)
        for raw, address in wanted.items():
            if free:
                os.pwrite(file.fileno(), raw, _GroupPage.own.offset + 16 * free.pop(0))
            else:
                full.append(address)
    return full


def read_version(path: Path) -> int:
    """Return the ABI version of a page that is in use; ValueError if the file is no group page."""
    with path.open("rb") as file:
        head = _GroupPage.from_buffer_copy(file.read(_GroupPage.num_queue.offset).ljust(SIZE, b"\0"))
    if head.magic != MAGIC:
        raise ValueError(f"{path}: not a group page")
    return int(head.abi_version)


def _text(what: str, value: str, size: int) -> bytes:
    data = value.encode()
    if len(data) >= size or b"\0" in data:
        raise ValueError(f'{what} "{value}" does not fit {size - 1} bytes')
    return data
