# SPDX-License-Identifier: MulanPSL-2.0
"""Writes a group page from command-line arguments, to start a single worker without a supervisor.

`python -m kit.write_group_page --run-dir D --device gz0 --host-addr 172.29.0.2/24 ..`
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path

from gazelled.pages.group_page import Driver, GroupPage, Idle, Role, WorkerRow, local_mac, write


# table: one line per option and field
def main(argv: Sequence[str]) -> int:
    """Write a page and print its path."""
    parser = argparse.ArgumentParser(prog="python -m kit.write_group_page", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--instance", default="default")
    parser.add_argument("--device", default="", help="tap or network device")
    parser.add_argument(
        "--host-addr", type=ipaddress.IPv4Interface, required=True, help="the stack's, e.g. 172.29.0.2/24"
    )
    parser.add_argument("--host-peer", type=ipaddress.IPv4Address, help="the host's address on the tap")
    parser.add_argument("--gateway", type=ipaddress.IPv4Address)
    parser.add_argument("--queues", type=int, default=1, help="workers, with --split twice the pairs")
    parser.add_argument("--cpus", default="", help="one per worker, e.g. 0,1; absent: not bound")
    parser.add_argument("--split", action="store_true", help="even queues receive, odd ones send")
    parser.add_argument("--driver", choices=[driver.name.lower() for driver in Driver], default="tap")
    parser.add_argument("--port-args", default="", help="EAL arguments, {queue} stands for the queue_id")
    parser.add_argument("--idle", choices=[idle.name.lower() for idle in Idle], default="adaptive")
    parser.add_argument("--spin-us", type=int, default=0)
    parser.add_argument("--mtu", type=int, default=1500)
    parser.add_argument("--mbufs", type=int, default=8192)
    parser.add_argument("--rx-queue-size", type=int, default=1024)
    parser.add_argument("--tx-queue-size", type=int, default=1024)
    parser.add_argument("--mac", help="default: made from the instance's name; 0 takes the device's")
    parser.add_argument("--trust-rx-checksum", action="store_true", help="the peers are local kernels (veth)")
    parser.add_argument("--allow-everybody", action="store_true", help="else root alone may attach")
    parser.add_argument("--uid", type=int, default=0)
    parser.add_argument("--gid", type=int, default=0)
    options = parser.parse_args(argv)
    cpus = [int(cpu) for cpu in options.cpus.split(",")] if options.cpus else [None] * options.queues
    if len(cpus) != options.queues or (options.split and options.queues % 2):
        parser.error("--cpus names one CPU per queue; --split needs an even number of queues")
    workers = []
    for queue in range(options.queues):
        role = (Role.RECV, Role.SEND)[queue % 2] if options.split else Role.BOTH
        name = f"lstack_{role.name.lower()}_0_{queue // 2}" if options.split else f"gazellelstack{queue:02d}"
        workers.append(
            WorkerRow(
                queue_id=queue,
                process_index=0,
                index=queue,
                role=role,
                cpu=cpus[queue],
                numa=None,
                mbufs=options.mbufs,
                rx_queue_size=options.rx_queue_size,
                tx_queue_size=options.tx_queue_size,
                name=name,
                comm=name[:15],
                pool=f"rxtx_mbuf_{queue}",
                port_args=options.port_args.replace("{queue}", str(queue)),
            )
        )
    mac = {None: local_mac(options.instance), "0": bytes(6)}.get(options.mac)
    options.run_dir.mkdir(parents=True, exist_ok=True)
    path = write(
        GroupPage(
            instance=options.instance,
            run_dir=options.run_dir.absolute(),
            driver=Driver[options.driver.upper()],
            device=options.device,
            host_addr=options.host_addr,
            workers=tuple(workers),
            split=options.split,
            idle=Idle[options.idle.upper()],
            spin_us=options.spin_us,
            mtu=options.mtu,
            trust_rx_checksum=options.trust_rx_checksum,
            gateway=options.gateway,
            host_peer=options.host_peer,
            mac=mac if mac is not None else bytes.fromhex(options.mac.replace(":", "")),
            run_uid=options.uid,
            run_gid=options.gid,
            allow_everybody=options.allow_everybody,
        )
    )
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
