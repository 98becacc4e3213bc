# SPDX-License-Identifier: MulanPSL-2.0
"""A file whose close() waits for as long as this process likes: FUSE, and FLUSH is never answered.

usage: python -m kit.slow_file PATH     serves it until it is told to end (SIGTERM)
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import struct
import sys
import threading

# linux/fuse.h
_LOOKED_AT = {3: "getattr", 14: "open", 26: "init"}
_IN_HEADER = struct.Struct("=IIQQIIII")
_OUT_HEADER = struct.Struct("=IiQ")
_ENOSYS = 38
_FLUSH = 25
_MNT_DETACH = 2


def _attributes() -> bytes:
    return struct.pack(
        "=QII QQQ QQQ III III III I", 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFREG | 0o666, 1, 0, 0, 0, 4096, 0
    )


def _serve(fuse: int) -> None:
    while True:
        try:
            request = os.read(fuse, 1 << 20)
        except OSError:
            return  # not mounted any more
        _, opcode, unique, *_ = _IN_HEADER.unpack_from(request)
        answer, error = b"", 0
        if opcode == _FLUSH:
            continue
        if opcode not in _LOOKED_AT:
            error = -_ENOSYS
        elif _LOOKED_AT[opcode] == "init":
            answer = struct.pack("=IIIIHHIIHH8I", 7, 23, 0, 0, 0, 0, 1 << 16, 0, 0, 0, *[0] * 8)[:24]
        elif _LOOKED_AT[opcode] == "getattr":
            answer = _attributes()
        else:
            answer = struct.pack("=QII", 1, 0, 0)
        os.write(fuse, _OUT_HEADER.pack(_OUT_HEADER.size + len(answer), error, unique) + answer)


def main(path: str) -> None:
    """Serve the file until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    libc = ctypes.CDLL(None, use_errno=True)
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fuse},rootmode=100000,user_id=0,group_id=0,allow_other"
    if libc.mount(b"slow", path.encode(), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    try:
        threading.Thread(target=_serve, args=(fuse,), daemon=True).start()
        os.close(os.open(path, os.O_PATH))  # it is there
        print("serving", flush=True)
        signal.sigwait([signal.SIGTERM])
    finally:
        libc.umount2(path.encode(), _MNT_DETACH)


if __name__ == "__main__":
    main(sys.argv[1])
