# SPDX-License-Identifier: MulanPSL-2.0
"""The control socket of a worker, for who has something to ask or to say: messages of gazelle/control.h."""

from __future__ import annotations

import ctypes
import socket

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.instance.run_dir import RunDir
from gazelled.pages.worker_page import ABI_VERSION

MAGIC = 0x68636174617A67
REFUSED = 3
TRACE = 13
CONNECTIONS = 18
DRAIN = 19
_PATIENCE_S = 2.0


class Message(ctypes.Structure):
    """The struct gz_message, as far as we use it."""

    _fields_ = [
        ("magic", ctypes.c_uint64),
        ("abi_version", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("number", ctypes.c_uint32),
        ("_attach_id", ctypes.c_uint32),
        ("status", ctypes.c_int32),
        ("_place", ctypes.c_uint8 * 36),
        ("cursor", ctypes.c_uint64),
        ("_size", ctypes.c_uint64),
        ("text", ctypes.c_char * 64),
    ]


def layout() -> dict[str, tuple[int, dict[str, int]]]:
    """Return size and field offsets of the control message, to be compared with `lstack --abi`."""
    known = {row[0]: getattr(Message, row[0]).offset for row in Message._fields_ if row[0][0] != "_"}
    return {"gz_message": (ctypes.sizeof(Message), known)}


def message(kind: int, number: int = 0, cursor: int = 0) -> bytes:
    """Return a message to a worker."""
    return bytes(Message(magic=MAGIC, abi_version=ABI_VERSION, kind=kind, number=number, cursor=cursor))


class WorkerControl:
    """A connection to a worker's control socket; what goes wrong is a GazelledError that names the worker."""

    def __init__(self, run_dir: RunDir, queue_id: int) -> None:
        self._queue_id = queue_id
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_PATIENCE_S)
        try:
            self._socket.connect(str(run_dir.path / f"worker.{queue_id}.sock"))
        except OSError as error:
            self.close()
            raise self._problem(error) from error

    def close(self) -> None:
        """End the connection, and with it what was asked for as long as it lasts."""
        self._socket.close()

    def say(self, said: bytes) -> None:
        """Send a message that has no answer."""
        try:
            self._socket.send(said)
        except OSError as error:
            raise self._problem(error) from error

    def ask(self, question: bytes, room: int = 0) -> tuple[Message, bytes]:
        """Send a message; return the answer and up to `room` bytes that follow in it."""
        self.say(question)
        try:
            said = self._socket.recv(ctypes.sizeof(Message) + room)
        except OSError as error:
            raise self._problem(error) from error
        if len(said) < ctypes.sizeof(Message):
            raise self._problem(None)
        answer = Message.from_buffer_copy(said)
        if answer.kind == REFUSED:
            raise self._problem(OSError(answer.status, answer.text.decode(errors="replace")))
        return answer, said[ctypes.sizeof(Message) :]

    def _problem(self, error: OSError | None) -> GazelledError:
        refused = isinstance(error, PermissionError)
        why = "it ended the conversation" if error is None else error.strerror or "it does not answer"
        return GazelledError(
            f"worker {self._queue_id}: cannot be asked: {why}",
            hint="who may attach may ask; so may root" if refused else "gazelled status says whether it runs",
            exit_code=ExitCode.PERMISSION if refused else ExitCode.UNAVAILABLE,
        )
