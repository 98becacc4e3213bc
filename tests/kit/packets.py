# SPDX-License-Identifier: MulanPSL-2.0
"""Packets by hand: built and parsed here, sent and received by a `Wire` from invented neighbours of the stack.

wire = kit_wire(instance)                      # on the device of an instance on a tap
wire.own("10.91.0.77")                         # a neighbour: the wire answers ARP and neighbour solicitations for it
peer = Connection(wire, "10.91.0.77", "10.91.0.2", 7000)
peer.open()
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import random
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from kit.instance import Instance, on_tap
from kit.lab import Kit, Process
from kit.waiting import until

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
ICMP, TCP, UDP, FRAGMENT, ICMP6 = 1, 6, 17, 44, 58
NEIGHBOUR = "10.91.0.77"
MAC = bytes.fromhex("02aa00000077")
MSS_OPTION = b"\x02\x04\x05\xb4"
_ETH_IP, _ETH_ARP, _ETH_IP6 = 0x0800, 0x0806, 0x86DD
_CLONE_NEWNET = 0x40000000
_PACKET_OUTGOING = 4
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_VNET_HDR = struct.Struct("=BBHHHH")
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_32 = 0xFFFFFFFF


def packed(address: str) -> bytes:
    """Return an address as it lies in a packet."""
    return ipaddress.ip_address(address).packed


def checksum(data: bytes) -> int:
    """Return the Internet checksum."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(source: str, to: str, protocol: int, length: int) -> bytes:
    """Return the pseudo-header that a transport's checksum covers."""
    both = packed(source) + packed(to)
    return both + (struct.pack("!II", length, protocol) if ":" in source else struct.pack("!HH", protocol, length))


def ip(
    source: str, to: str, protocol: int, payload: bytes, *, ident: int = 0, fragment: int = 0, hops: int = 64
) -> bytes:
    """Return an IP packet; `fragment` is IPv4's field of flags and offset."""
    if ":" in source:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, hops) + packed(source) + packed(to) + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), ident, fragment, hops, protocol, 0)
    header += packed(source) + packed(to)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload


def fragment_of(source: str, to: str, protocol: int, ident: int, offset: int, more: bool, data: bytes) -> bytes:
    """Return one fragment of a datagram; offset in bytes."""
    if ":" in source:
        return ip(source, to, FRAGMENT, struct.pack("!BBHI", protocol, 0, offset | more, ident) + data)
    return ip(source, to, protocol, data, ident=ident, fragment=more << 13 | offset >> 3)


def tcp(
    source: str,
    to: str,
    ports: tuple[int, int],
    flags: int,
    *,
    seq: int = 0,
    ack: int = 0,
    window: int = 65535,
    options: bytes = b"",
    data: bytes = b"",
) -> bytes:
    """Return a TCP segment in its IP packet; options are padded."""
    options += b"\0" * (-len(options) % 4)
    offset = (20 + len(options)) // 4 << 4
    segment = struct.pack("!HHIIBBHHH", *ports, seq & _32, ack & _32, offset, flags, window, 0, 0) + options + data
    right = checksum(pseudo(source, to, TCP, len(segment)) + segment)
    return ip(source, to, TCP, segment[:16] + struct.pack("!H", right) + segment[18:])


def udp(source: str, to: str, ports: tuple[int, int], data: bytes) -> bytes:
    """Return a UDP datagram without its IP header."""
    datagram = struct.pack("!HHHH", *ports, 8 + len(data), 0) + data
    right = checksum(pseudo(source, to, UDP, len(datagram)) + datagram) or 0xFFFF
    return datagram[:6] + struct.pack("!H", right) + datagram[8:]


def icmp(source: str, to: str, kind: int, code: int, rest: bytes) -> bytes:
    """Return an ICMP or ICMPv6 message in its IP packet; `rest` is what follows the checksum."""
    message = struct.pack("!BBH", kind, code, 0) + rest
    protocol = ICMP6 if ":" in source else ICMP
    covered = pseudo(source, to, protocol, len(message)) if protocol == ICMP6 else b""
    message = message[:2] + struct.pack("!H", checksum(covered + message)) + message[4:]
    return ip(source, to, protocol, message, hops=255)


def too_big(router: str, about: bytes, mtu: int) -> bytes:
    """Return "packet too big" (IPv6) or "fragmentation needed" (IPv4) about a packet of the stack."""
    if about[0] >> 4 == 6:
        to = str(ipaddress.ip_address(about[8:24]))
        return icmp(router, to, 2, 0, struct.pack("!I", mtu) + about[:1232])
    to = str(ipaddress.ip_address(about[12:16]))
    return icmp(router, to, 3, 4, struct.pack("!HH", 0, mtu) + about[:548])


@dataclass
class Packet:
    """A parsed packet; `raw` is from the IP header on."""

    raw: bytes
    source: str = ""
    to: str = ""
    protocol: int = -1
    dont_fragment: bool = True
    is_fragment: bool = False
    ports: tuple[int, int] = (0, 0)
    seq: int = 0
    ack: int = 0
    flags: int = 0
    window: int = 0
    options: bytes = b""
    kind: tuple[int, int] = (-1, -1)  # of an ICMP message: type and code
    data: bytes = field(default=b"", repr=False)
    checksum_ok: bool = True
    cut: int = 0  # of a super-frame: the data that each of its segments carries

    @property
    def longest(self) -> int:
        """Return the length of the longest packet that leaves the device for this one."""
        return len(self.raw) - len(self.data) + min(len(self.data), self.cut or len(self.data))

    @property
    def end(self) -> int:
        """Return the sequence number behind a segment."""
        return (self.seq + len(self.data) + bool(self.flags & SYN) + bool(self.flags & FIN)) & _32


def parse(raw: bytes, unfinished: bool = False, cut: int = 0) -> Packet:
    """Read a packet from its IP header on; an unfinished checksum is one that the device makes."""
    packet = Packet(raw, cut=cut)
    if raw[0] >> 4 == 4:
        length, field_of_flags = struct.unpack("!HxxH", raw[2:8])
        packet.protocol = raw[9]
        packet.source, packet.to = (str(ipaddress.ip_address(raw[at : at + 4])) for at in (12, 16))
        packet.dont_fragment, packet.is_fragment = bool(field_of_flags & 0x4000), bool(field_of_flags & 0x3FFF)
        packet.raw, above = raw[:length], raw[(raw[0] & 15) * 4 : length]
    else:
        packet.protocol = raw[6]
        packet.source, packet.to = (str(ipaddress.ip_address(raw[at : at + 16])) for at in (8, 24))
        packet.is_fragment = packet.protocol == FRAGMENT
        end = 40 + int(struct.unpack("!H", raw[4:6])[0])
        packet.raw, above = raw[:end], raw[40:end]
    packet.data = above
    if not packet.is_fragment:
        _parse_transport(packet, above)
    packet.checksum_ok |= unfinished and not packet.is_fragment
    return packet


def _parse_transport(packet: Packet, above: bytes) -> None:
    if packet.protocol == TCP and len(above) >= 20:
        *ports, packet.seq, packet.ack, offset, packet.flags, packet.window = struct.unpack("!HHIIBBH", above[:16])
        packet.ports = (ports[0], ports[1])
        packet.options, packet.data = above[20 : offset >> 4 << 2], above[offset >> 4 << 2 :]
    elif packet.protocol == UDP and len(above) >= 8:
        packet.ports, packet.data = struct.unpack("!HH", above[:4]), above[8:]
    elif packet.protocol in (ICMP, ICMP6) and len(above) >= 4:
        packet.kind, packet.data = (above[0], above[1]), above[8:]
    if packet.protocol in (TCP, UDP, ICMP6):
        cover = pseudo(packet.source, packet.to, packet.protocol, len(above))
        packet.checksum_ok = checksum(cover + above) == 0
    elif packet.protocol == ICMP:
        packet.checksum_ok = checksum(above) == 0


def _socket_in(namespace: str, device: str) -> socket.socket:
    """Open a packet socket on a device of another namespace: a thread goes there, only the socket comes back."""
    made: list[socket.socket | OSError] = []

    def go() -> None:
        here = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(here, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            opened.bind((device, 0))
            made.append(opened)
        except OSError as error:
            made.append(error)
        finally:
            os.close(here)

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


class Wire:
    """Frames on a device, from neighbours that exist nowhere else. One thread reads, and answers for them."""

    def __init__(self, namespace: str, device: str, stack_mac: bytes) -> None:
        self.stack_mac = stack_mac
        self.silent: set[str] = set()  # neighbours that do not answer for themselves
        self.macs: dict[str, bytes] = {}  # neighbours with a MAC of their own
        self.asked: list[str] = []  # whom the stack has asked for, in order
        self._own: set[str] = set()
        self._seen: list[Packet] = []
        self._news = threading.Condition()
        self._socket = _socket_in(namespace, device)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            self._socket.setsockopt(socket.SOL_SOCKET, option, 1 << 24)
        self._ended, self._end = os.pipe()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def close(self) -> None:
        """End the reader."""
        os.close(self._end)
        self._reader.join()
        os.close(self._ended)
        self._socket.close()

    def own(self, *addresses: str) -> None:
        """Be the neighbours of these addresses."""
        self._own.update(addresses)

    def send(self, packet: bytes, mac: bytes = b"", to: bytes = b"") -> None:
        """Send an IP packet to the stack."""
        kind = _ETH_IP if packet[0] >> 4 == 4 else _ETH_IP6
        self.send_frame((to or self.stack_mac) + (mac or MAC) + struct.pack("!H", kind) + packet)

    def send_frame(self, frame: bytes) -> None:
        """Send a frame; waits while the device is full."""
        while True:
            try:
                self._socket.send(bytes(_VNET_HDR.size) + frame)
                return
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno != 105:  # ENOBUFS
                    raise
            select.select([], [self._socket], [], 0.01)

    def wait(self, wanted: Callable[[Packet], bool], seconds: float = 5.0) -> Packet | None:
        """Take the first packet that is wanted, seen already or to come; None when the time is over."""
        deadline = time.monotonic() + seconds
        with self._news:
            while True:
                for index, packet in enumerate(self._seen):
                    if wanted(packet):
                        return self._seen.pop(index)
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._news.wait(left)

    def drain(self) -> list[Packet]:
        """Take all packets that have been seen and nobody has waited for."""
        with self._news:
            seen, self._seen = self._seen, []
        return seen

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket.fileno(), self._ended], [], [])
            if self._ended in ready:
                return
            try:
                whole, where = self._socket.recvfrom(70000)
            except OSError:  # the device has gone
                return
            if where[2] == _PACKET_OUTGOING:
                continue
            flags, _, _, cut, _, _ = _VNET_HDR.unpack(whole[: _VNET_HDR.size])
            frame = whole[_VNET_HDR.size :]
            kind = int(struct.unpack("!H", frame[12:14])[0])
            if kind == _ETH_ARP:
                self._answer_arp(frame)
            elif kind in (_ETH_IP, _ETH_IP6) and not (frame[20] == ICMP6 and frame[54] == 135 and self._answer6(frame)):
                with suppress(struct.error, IndexError, ValueError):
                    packet = parse(frame[14:], bool(flags & 1), cut)
                    with self._news:
                        self._seen.append(packet)
                        self._news.notify_all()

    def _answer_arp(self, frame: bytes) -> None:
        target = str(ipaddress.ip_address(frame[38:42]))
        if frame[20:22] != b"\0\1":
            return
        self.asked.append(target)
        if target in self._own and target not in self.silent:
            self.send_frame(arp(2, target, self.macs.get(target, MAC), frame[28:32], frame[22:28], frame[6:12]))

    def _answer6(self, frame: bytes) -> bool:
        if frame[12:14] != b"\x86\xdd":
            return False
        target = str(ipaddress.ip_address(frame[62:78]))
        self.asked.append(target)
        if target in self._own and target not in self.silent:
            asking = str(ipaddress.ip_address(frame[22:38]))
            mac = self.macs.get(target, MAC)
            self.send(advertisement(target, asking, mac), mac, to=frame[6:12])
        return True


def arp(kind: int, source: str, mac: bytes, to: bytes, to_mac: bytes, ether: bytes) -> bytes:
    """Return an ARP frame: 1 asks, 2 answers."""
    head = ether + mac + struct.pack("!HHHBBH", _ETH_ARP, 1, _ETH_IP, 6, 4, kind)
    return head + mac + packed(source) + to_mac + to


def advertisement(target: str, to: str, mac: bytes, flags: int = 0x60) -> bytes:
    """Return a neighbour advertisement, by default solicited and overriding."""
    return icmp(target, to, 136, 0, struct.pack("!BBH", flags, 0, 0) + packed(target) + b"\x02\x01" + mac)


def kit_wire(instance: Instance) -> Wire:
    """Open a wire on the device of an instance on a tap; it ends with the test's kit."""
    mac = bytes.fromhex(instance.plan()["network"]["mac"].replace(":", ""))
    wire = Wire(instance.home.name, instance.device, mac)
    instance.kit.later(wire.close)
    return wire


def grown(wire: Wire, instance: Instance) -> None:
    """Wait until the worker refuses a SYN: in its first second it answers none, since listeners may be coming back."""

    def refused() -> bool:
        peer = Connection(wire, "10.91.0.76", instance.address, 7099)
        peer.send(SYN)
        return peer.wait(seconds=0.3) is not None

    until(refused, "the worker to refuse a SYN")


def served(kit: Kit, program: str, says: str = "serving") -> tuple[Instance, Process]:
    """Start an instance on a tap, and a Python program on it that says when it serves."""
    instance = on_tap(kit, 1)
    instance.start()
    server = instance.spawn(sys.executable, "-c", program)
    server.said(says)
    return instance, server


def neighbour(instance: Instance, port: int) -> Connection:
    """Return a connection, not yet opened, of the neighbour 10.91.0.77 to a port of the stack."""
    return Connection(kit_wire(instance), NEIGHBOUR, instance.address, port)


class Connection:
    """A TCP connection of an invented neighbour, driven by hand."""

    def __init__(self, wire: Wire, source: str, to: str, port: int, *, options: bytes = MSS_OPTION) -> None:
        wire.own(source)
        self.wire, self.source, self.to = wire, source, to
        self.ports = (random.randint(20000, 30000), port)
        self.isn = random.getrandbits(32)
        self.seq, self.ack, self.window = self.isn, 0, 65535
        self.options = options

    def send(self, flags: int, data: bytes = b"", *, seq: int | None = None, options: bytes = b"") -> None:
        """Send a segment; its sequence number is the next one unless it is given."""
        number = self.seq if seq is None else seq
        ack = self.ack if flags & ACK else 0
        self.wire.send(
            tcp(
                self.source,
                self.to,
                self.ports,
                flags,
                seq=number,
                ack=ack,
                window=self.window,
                options=options,
                data=data,
            )
        )
        if seq is None:
            self.seq = (self.seq + len(data) + bool(flags & SYN) + bool(flags & FIN)) & _32

    def mine(self, packet: Packet) -> bool:
        """Tell whether a packet belongs to this connection."""
        return packet.protocol == TCP and packet.to == self.source and packet.ports == self.ports[::-1]

    def wait(self, wanted: Callable[[Packet], bool] = lambda _: True, seconds: float = 5.0) -> Packet | None:
        """Take the first packet of this connection that is wanted."""
        return self.wire.wait(lambda packet: self.mine(packet) and wanted(packet), seconds)

    def open(self) -> Packet:
        """Shake hands; return the SYN and ACK."""
        self.send(SYN, options=self.options)
        answer = self.wait(lambda packet: bool(packet.flags & (SYN | RST)))
        assert answer is not None, "no answer to a SYN"
        assert answer.flags & SYN, f"refused: {answer}"
        self.ack = answer.end
        self.send(ACK)
        return answer

    def receive(self, size: int, seconds: float = 10.0) -> bytes:
        """Take so many bytes in order, acknowledging each segment; fewer when the peer ends or the time is over."""
        got = b""
        deadline = time.monotonic() + seconds
        while len(got) < size and (left := deadline - time.monotonic()) > 0:
            segment = self.wait(lambda packet: bool(packet.data or packet.flags & (FIN | RST)), left)
            if segment is None or segment.flags & RST:
                break
            old = (self.ack - segment.seq) & _32
            if old <= len(segment.data):
                got += segment.data[old:]
                self.ack = segment.end
            self.send(ACK)
            if segment.flags & FIN and self.ack == segment.end:
                break
        return got
