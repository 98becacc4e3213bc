# SPDX-License-Identifier: MulanPSL-2.0
"""The programs that are run as they are, one row each: how it is started, by what client, and what proves real work."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = sys.executable
SIZE = 8 << 20

Argv = tuple[str, ...]


@dataclass(frozen=True)
class Files:
    """What servers serve: a directory with `file`, whose digest is known, and a certificate."""

    directory: Path
    digest: str

    @property
    def tls(self) -> Argv:
        """Return options of openssl s_server."""
        return ("-cert", str(self.directory / "cert.pem"), "-key", str(self.directory / "key.pem"))


@dataclass(frozen=True)
class Program:
    """A server and a client of it. `proved` looks at what the client printed, and asserts."""

    name: str
    server: Callable[[str, str, Files], Argv]  # address, port
    client: Callable[[str, str, Files], Argv]
    proved: Callable[[str, Files], None]
    connections: int = 1  # which the client makes at least
    datagrams: int = 0  # which the client sends at least


def says(text: str) -> Callable[[str, Files], None]:
    """Return a proof: the client said something."""

    def proved(said: str, files: Files) -> None:
        assert text in said, said

    return proved


def the_file(said: str, files: Files) -> None:
    """Prove that the client printed the digest of the file."""
    assert files.digest in said, said


def at_least_megabits(wanted: float) -> Callable[[str, Files], None]:
    """Return a proof for iperf3: it summed up four streams, and their rate is no stall."""

    def proved(said: str, files: Files) -> None:
        rates = re.findall(r"\[SUM\].* ([\d.]+) Mbits/sec.*receiver", said)
        assert rates, said
        assert float(rates[-1]) > wanted, said

    return proved


def few_lost(said: str, files: Files) -> None:
    """Prove that iperf3 got most of its datagrams through: this machine is busy, and they have no flow control."""
    assert (lost := re.findall(r"(\d+)/(\d+) \(.*receiver", said)), said
    assert int(lost[-1][0]) < int(lost[-1][1]) / 2, said


def no_error(said: str, files: Files) -> None:
    """Prove that wrk had answers, all of them good."""
    assert (done := re.search(r"(\d+) requests in", said)), said
    assert int(done[1]) > 500, said
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said


def shell(script: str, *arguments: str) -> Argv:
    """Return a command line of bash in which `$1` and so on are the arguments."""
    return ("bash", "-o", "pipefail", "-c", script, "bash", *arguments)


def nginx(address: str, port: str, files: Files) -> Argv:
    """Write a configuration and return the command line of nginx."""
    file = files.directory / f"nginx-{port}.conf"
    file.write_text(f"""
        user root; daemon off; worker_processes 2; pid {files.directory}/nginx-{port}.pid; error_log stderr warn;
        events {{ worker_connections 512; }}
        http {{
            access_log off; sendfile on; keepalive_requests 1000000;
            client_body_temp_path {files.directory}/body-{port};
            server {{
                listen {address}:{port}; root {files.directory};
                location = /small {{ return 200 "small\\n"; }}
            }}
        }}
    """)
    return ("nginx", "-c", str(file), "-e", "stderr")


def curl(address: str, port: str, files: Files) -> Argv:
    """Return a download that prints its digest."""
    return shell('curl -sSf --max-time 30 "$1" | sha256sum', f"http://{address}:{port}/file")


def wrk(address: str, port: str, files: Files) -> Argv:
    """Return a load of 20 connections."""
    return ("wrk", "-t2", "-c20", "-d1s", f"http://{address}:{port}/small")


def openssl(address: str, port: str, files: Files) -> Argv:
    """Return a TLS download that prints the digest of what follows the headers."""
    script = r"""openssl s_client -quiet -connect "$1" < "$2" 2>/dev/null | sed '1,/^\r$/d' | sha256sum"""
    return shell(script, f"{address}:{port}", str(files.directory / "request"))


def python(kind: str, script: str) -> Callable[[str, str, Files], Argv]:
    """Return the command line of one of our own scripts."""
    return lambda address, port, files: (PYTHON, str(HERE / script), kind, address, port)


def iperf3(*options: str) -> Callable[[str, str, Files], Argv]:
    """Return a load of one second."""
    return lambda address, port, files: (
        "iperf3", "-c", address, "-p", port, "-t", "1", "-f", "m", "--connect-timeout", "5000", *options,
    )  # fmt: skip


def iperf3_server(address: str, port: str, files: Files) -> Argv:
    """Return the command line of the server."""
    return ("iperf3", "-s", "-B", address, "-p", port)


def memcached(address: str, port: str, files: Files, udp: str = "") -> Argv:
    """Return the command line of the server: four threads, TCP and UDP."""
    return ("memcached", "-u", "root", "-l", address, "-p", port, "-U", udp or port, "-t", "4")


def http_server(address: str, port: str, files: Files) -> Argv:
    """Return Python's http.server, as it comes."""
    return (PYTHON, "-m", "http.server", "--bind", address, "--directory", str(files.directory), port)


ECHO = python("echo", "clients.py")
ECHOED = says("all 20 connections")

PROGRAMS = (
    Program(
        "memcached",
        lambda address, port, files: memcached(address, port, files, "0"),
        python("memcached", "clients.py"),
        says("all 8 threads"),
        8,
    ),
    Program("memcached-udp", memcached, python("memcached-udp", "clients.py"), says("all 200 keys"), 0, 400),
    Program("iperf3", iperf3_server, iperf3("-P", "4"), at_least_megabits(50), 5),
    Program("iperf3-reverse", iperf3_server, iperf3("-P", "4", "-R"), at_least_megabits(50), 5),
    Program("iperf3-udp", iperf3_server, iperf3("-u", "-b", "100M", "-l", "1200"), few_lost, 1, 1000),
    Program("asyncio", python("asyncio", "servers.py"), ECHO, ECHOED, 20),
    Program("uvloop", python("uvloop", "servers.py"), ECHO, ECHOED, 20),
    Program("forking", python("forking", "servers.py"), ECHO, ECHOED, 20),
    Program("prefork", python("prefork", "servers.py"), ECHO, ECHOED, 20),
    Program("handing", python("handing", "servers.py"), ECHO, ECHOED, 20),
    Program("http.server", http_server, curl, the_file),
    Program("nginx-curl", nginx, curl, the_file),
    Program("nginx-wrk", nginx, wrk, no_error, 20),
    Program(
        "openssl",
        lambda address, port, files: ("openssl", "s_server", "-accept", f"{address}:{port}", "-WWW", *files.tls),
        openssl,
        the_file,
    ),
    Program(
        "node-put",
        lambda address, port, files: ("node", str(HERE / "server.js"), address, port),
        lambda address, port, files: shell(
            'curl -sSf --max-time 30 -T "$2" "$1" | sha256sum',
            f"http://{address}:{port}/",
            str(files.directory / "file"),
        ),
        the_file,
    ),
    Program(
        "node-wrk",
        lambda address, port, files: ("node", str(HERE / "server.js"), address, port),
        wrk,
        no_error,
        20,
    ),
)


def make_files(directory: Path, run: Callable[..., str]) -> Files:
    """Make what the servers serve; `run` runs a command."""
    content = b"".join(number.to_bytes(8, "big") for number in range(SIZE // 8))
    (directory / "file").write_bytes(content)
    (directory / "request").write_bytes(b"GET /file HTTP/1.0\r\n\r\n")
    run(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=gazelled", "-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem"),
    )  # fmt: skip
    return Files(directory, hashlib.sha256(content).hexdigest())
