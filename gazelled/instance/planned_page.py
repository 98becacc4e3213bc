# SPDX-License-Identifier: MulanPSL-2.0
"""The group page of a plan: what the supervisor writes before it starts the first worker."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from gazelled.instance.access import Access
from gazelled.pages.group_page import Driver, GroupPage, Idle, Role, WorkerRow
from gazelled.planning.plan import Plan


def planned_page(
    plan: Plan,
    process_index: int,
    run_dir: Path,
    access: Access,
    *,
    run_uid: int = 0,
    run_gid: int = 0,
    trust_rx_checksum: bool = False,
    uplink_owners: int = 0,
    uplink_alive: int = 0,
    uplink_ifindex: int = 0,
    own: tuple[str, ...] = (),
) -> GroupPage:
    """Return the page of one process of a plan without error findings; `run_uid` is whom its workers become."""
    kinds = {"tap": Driver.TAP, "ethdev": Driver.ETHDEV, "none": Driver.NONE}
    network, stack = plan.network, plan.stack
    return GroupPage(
        instance=plan.instance,
        run_dir=run_dir,
        driver=kinds[plan.workers[0].port.kind],
        device=plan.device.name,
        host_addr=ipaddress.IPv4Interface(f"{network.host_addr}/{network.prefix}"),
        workers=tuple(
            WorkerRow(
                queue_id=worker.queue_id,
                process_index=worker.process_index,
                index=worker.index,
                role=Role[worker.role.upper()],
                cpu=worker.cpu,
                numa=worker.numa,
                mbufs=worker.mempool.mbufs,
                rx_queue_size=worker.rings.rx,
                tx_queue_size=worker.rings.tx,
                name=worker.name,
                comm=worker.comm,
                pool=worker.mempool.name,
                port_args=" ".join(worker.port.eal_args),
            )
            for worker in plan.workers
        ),
        process_index=process_index,
        split=plan.separate_send_recv,
        idle=Idle[stack.idle.upper()],
        spin_us=stack.spin_us,
        mtu=plan.device.mtu,
        nic_read_number=stack.nic_read_number,
        rpc_number=stack.rpc_number,
        read_connect_number=stack.read_connect_number,
        trust_rx_checksum=trust_rx_checksum,
        gateway=ipaddress.IPv4Address(network.gateway) if network.gateway else None,
        host_peer=ipaddress.IPv4Address(network.host_peer) if network.host_peer else None,
        host_addr6=ipaddress.IPv6Address(network.host_addr6) if network.host_addr6 else None,
        gateway6=ipaddress.IPv6Address(network.gateway6) if network.gateway6 else None,
        host_peer6=ipaddress.IPv6Address(network.host_peer6) if network.host_peer6 else None,
        mac=bytes.fromhex(network.mac.replace(":", "")) if network.mac else bytes(6),
        run_uid=run_uid,
        run_gid=run_gid,
        uplink_owners=uplink_owners,
        uplink_alive=uplink_alive,
        uplink_ifindex=uplink_ifindex,
        own=own,
        rss_key=bytes.fromhex(plan.rss_key),
        reta=plan.reta,
        allow_everybody=access.everybody,
        allow_uids=access.uids,
        allow_gids=access.gids,
        foreign_listen=plan.security.foreign_namespaces == "listen",
        file_gid=access.own_gid if access.private else None,
    )
