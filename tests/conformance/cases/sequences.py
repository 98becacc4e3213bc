# SPDX-License-Identifier: MulanPSL-2.0
"""Random sequences of calls. A seed names a sequence; CONFORMANCE_SEEDS=N makes N of each instead of a few.

A model knows how many bytes wait where, so that every step waits for what the one before it has caused and the trace
depends on nothing else.
"""

from __future__ import annotations

import os
import random
import socket

from conformance.ends import Sock
from conformance.env import T
from conformance.names import ET, HUP, IN, ONESHOT, OUT
from conformance.ops import RDHUP, pattern
from conformance.registry import PAIR, table

_SEEDS = {str(seed): (seed,) for seed in range(int(os.environ.get("CONFORMANCE_SEEDS", "12")))}
_MOST_WAITING = 20_000
NOSIG, DONTWAIT, PEEK = socket.MSG_NOSIGNAL, socket.MSG_DONTWAIT, socket.MSG_PEEK


class _End:
    """One end of a pair, and what the model knows of it."""

    def __init__(self, sock: Sock) -> None:
        self.sock, self.waiting, self.ended, self.finished = sock, 0, False, False


def _step(dice: random.Random, me: _End, other: _End) -> None:
    s = me.sock
    choice = dice.choice(
        ["send"] * 5
        + ["recv"] * 5
        + ["writev", "readv", "sendmsg", "recvmsg", "peek", "fionread", "poll", "empty", "waitall"]
        + ["nodelay", "finish"]
    )
    room = _MOST_WAITING - other.waiting
    if choice in ("send", "writev", "sendmsg"):
        count = dice.randrange(min(room, 4000)) if room > 1 else 0
        raw = pattern(count, dice.randrange(1 << 30))
        half = count // 2
        if choice == "send":
            sent = s.send(raw, NOSIG)
        elif choice == "sendmsg":
            sent = s.sendmsg([raw[:half], raw[half:]], NOSIG)
        else:
            sent = s.writev([raw[:half], raw[half:]])
        if isinstance(sent, int):
            other.waiting += sent
            other.sock.queued(other.waiting)
    elif choice in ("recv", "readv", "recvmsg", "waitall") and (me.waiting or me.ended):
        count = dice.randrange(1, 5000)
        if choice == "recv":
            s.recv(count, DONTWAIT)
        elif choice == "waitall":
            s.recv(min(count, me.waiting) or 1, socket.MSG_WAITALL)
            count = min(count, me.waiting)
        elif choice == "readv":
            s.readv([count // 3, count - count // 3])
        else:
            s.recvmsg([count // 2, count - count // 2], DONTWAIT)
        me.waiting -= min(count, me.waiting)
    elif choice == "peek":
        s.recv(dice.randrange(1, 3000), PEEK | DONTWAIT)
    elif choice == "fionread":
        s.ioctl(0x541B, label="FIONREAD")
    elif choice == "poll":
        s.poll()
    elif choice == "empty" and not me.waiting and not me.ended:
        s.recv(10, DONTWAIT)
    elif choice == "nodelay":
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, dice.randrange(2), "NODELAY")
    elif choice == "finish" and not me.finished and dice.random() < 0.3:
        s.shutdown(socket.SHUT_WR)
        me.finished = other.ended = True
        other.sock.wait(RDHUP)
        if other.finished:
            s.wait(HUP)
            other.sock.wait(HUP)


@table(_SEEDS, PAIR)
def sequence(t: T, seed: int) -> None:
    dice = random.Random(seed)
    ends = [_End(sock) for sock in t.pair()]
    for _ in range(60):
        me = dice.randrange(2)
        _step(dice, ends[me], ends[1 - me])
    closer = dice.randrange(2)
    gone, left = ends[closer], ends[1 - closer]
    gone.sock.close()
    if gone.finished and left.finished:
        pass  # all is over already
    elif gone.waiting:
        left.sock.wait(HUP)  # what was not read is answered by a RST; the error is there a moment before it is over
    elif not gone.finished:
        left.sock.wait(RDHUP)
    left.sock.drain()


@table(_SEEDS, PAIR)
def epoll_sequence(t: T, seed: int) -> None:
    dice = random.Random(1000 + seed)
    pairs = [t.pair(f"s{n}", f"p{n}") for n in range(3)]
    waiting, added = [0] * 3, [False] * 3
    ep = t.epoll()
    for _ in range(60):
        n = dice.randrange(3)
        s, p = pairs[n]
        events = dice.choice([IN, IN | OUT, IN | RDHUP]) | dice.choice([0, ET, ONESHOT, ET | ONESHOT])
        choice = dice.choice(["send", "send", "recv", "drain", "look", "look", "look", "change", "remove"])
        if choice == "send" and waiting[n] < _MOST_WAITING:
            waiting[n] += p.send(pattern(dice.randrange(1, 2000), seed))
            s.queued(waiting[n])
        elif choice == "recv" and waiting[n]:
            waiting[n] -= len(s.recv(dice.randrange(1, 1000)))
        elif choice == "drain":
            s.recv(100_000, DONTWAIT)
            waiting[n] = 0
        elif choice == "look":
            ep.now(dice.choice([3, 8]))
        elif choice == "change":
            added[n] = (ep.mod if added[n] else ep.add)(s, events) == 0 or added[n]
        elif choice == "remove" and added[n] and dice.random() < 0.5:
            ep.remove(s)
            added[n] = False
    for s, p in pairs:
        dice.choice([p.close, p.reset])()
        s.wait(RDHUP | HUP)
    ep.now()
    ep.now()
