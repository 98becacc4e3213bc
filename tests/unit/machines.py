# SPDX-License-Identifier: MulanPSL-2.0
"""Machines and configurations for tests of the planner."""

from collections.abc import Sequence

from hypothesis import strategies as st

from gazelled.config import Config, NetworkConfig, PortConfig, ProcessConfig, StackConfig
from gazelled.planning.topology import Cpu, Topology


def machine(
    nodes: int = 1, cores: int = 4, threads: int = 1, offline: Sequence[int] = (), forbidden: Sequence[int] = ()
) -> Topology:
    """Return a machine whose CPUs are numbered node by node, the second threads after all first ones."""
    per_thread = nodes * cores
    return Topology(
        cpus=tuple(
            Cpu(
                id=thread * per_thread + node * cores + core,
                numa=node,
                core=core,
                socket=node,
                online=thread * per_thread + node * cores + core not in offline,
                allowed=thread * per_thread + node * cores + core not in forbidden,
            )
            for thread in range(threads)
            for node in range(nodes)
            for core in range(cores)
        )
    )


def plain(*cpus: Sequence[int], **stack: object) -> Config:
    """Return a configuration with a process per CPU list."""
    return Config(
        stack=StackConfig(**stack),  # type: ignore[arg-type]
        process=tuple(ProcessConfig(cpus=tuple(each)) for each in cpus),
    )


def split(*pairs: tuple[Sequence[int], Sequence[int]], **stack: object) -> Config:
    """Return a configuration with the send/recv split: (recv_cpus, send_cpus) per process."""
    return Config(
        stack=StackConfig(**stack),  # type: ignore[arg-type]
        process=tuple(ProcessConfig(recv_cpus=tuple(recv), send_cpus=tuple(send)) for recv, send in pairs),
    )


def on_port(config: Config, driver: str, *device: str, mtu: int | None = None) -> Config:
    """Return the configuration on another port."""
    port = PortConfig(driver=driver, device=device, mtu=mtu, host_driver="vfio-pci" if driver == "pci" else None)
    return Config(stack=config.stack, process=config.process, port=port, network=config.network)


def at_address(config: Config, host_addr: str, gateway_addr: str | None = None) -> Config:
    """Return the configuration with other addresses."""
    network = NetworkConfig(host_addr, gateway_addr)
    return Config(stack=config.stack, process=config.process, port=config.port, network=network)


@st.composite
def machines(draw: st.DrawFn) -> Topology:
    """Draw a machine with up to four nodes, numbered in a random order, some CPUs offline or forbidden."""
    plain_machine = machine(draw(st.integers(1, 4)), draw(st.integers(1, 8)), draw(st.integers(1, 2)))
    numbers = draw(st.permutations([cpu.id for cpu in plain_machine.cpus]))
    flags = st.lists(st.sampled_from([True, True, True, False]), min_size=len(numbers), max_size=len(numbers))
    online, allowed = draw(flags), draw(flags)
    return Topology(
        cpus=tuple(
            Cpu(id=number, numa=cpu.numa, core=cpu.core, socket=cpu.socket, online=up, allowed=may)
            for number, cpu, up, may in zip(numbers, plain_machine.cpus, online, allowed, strict=True)
        )
    )


@st.composite
def configs(draw: st.DrawFn, topology: Topology) -> Config:
    """Draw a configuration of equal processes whose CPUs are all in the machine, plain or split."""
    number = st.sampled_from([cpu.id for cpu in topology.cpus])
    width, is_split = draw(st.integers(1, 6)), draw(st.booleans())
    cpus = st.lists(number, min_size=width, max_size=width).map(tuple)
    process = (
        st.builds(ProcessConfig, recv_cpus=cpus, send_cpus=cpus) if is_split else st.builds(ProcessConfig, cpus=cpus)
    )
    stack = st.builds(
        StackConfig,
        instance=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}", fullmatch=True),
        tcp_conn_count=st.integers(1, 10**6),
        mbuf_count_per_conn=st.integers(1, 1000),
        idle=st.sampled_from(["adaptive", "poll"]),
    )
    driver = draw(st.sampled_from(["tap", "af_xdp", "pci", "af_packet", "memif", "none"]))
    device = {"tap": (), "none": (), "pci": ("0000:03:00.0", "0000:03:00.1")}.get(driver, ("eth1",))
    processes = tuple(draw(st.lists(process, min_size=1, max_size=12)))
    return on_port(Config(stack=draw(stack), process=processes), driver, *device)
