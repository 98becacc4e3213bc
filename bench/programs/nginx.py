# SPDX-License-Identifier: MulanPSL-2.0
"""nginx under wrk: small and large pages over kept connections, and a new connection for every request."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from kit.lab import Process

from bench.lab import BenchError
from bench.programs.program import Load, Outcome, Program
from bench.side import Side, Site

PORT = 8080
CONNECTIONS = 32
_SIZES = {"small": 600, "large": 100 * 1024}
_DONE = re.compile(r"(\d+) requests in ([\d.]+)(us|ms|s|m)")
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_ERRORS = re.compile(r"Socket errors: (.*)")
_NON_2XX = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_ZERO = "connect 0, read 0, write 0, timeout 0"


def parse(text: str) -> Outcome:
    """Read wrk's report; BenchError if it is none, or if it counts errors."""
    done, rate, errors, bad = (each.search(text) for each in (_DONE, _RATE, _ERRORS, _NON_2XX))
    if not done or not rate or not int(done[1]):
        raise BenchError(f"wrk printed no figures: {text[-200:]!r}")
    if bad:
        raise BenchError(f"wrk: {bad[0]}")
    if errors and errors[1].strip() != _ZERO:
        raise BenchError(f"wrk: {errors[0]} in {done[1]} requests")
    return Outcome(float(rate[1]), float(done[1]))


def _run(page: str, new: bool, side: Side, cpu: int, _: int) -> Outcome:
    words = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", "1s", "--timeout", "5s"]
    close = ["-H", "Connection: close"] if new else []
    return parse(side.call([*words, *close, f"http://{side.address}:{PORT}/{page}"], cpu))


def configuration(site: Site, root: Path) -> str:
    """Return nginx's configuration: one worker, Debian's sendfile and tcp_nopush, no logs."""
    own = root / site.key
    paths = "\n".join(
        f"    {name}_temp_path {own}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""daemon off;
worker_processes 1;
user root;
pid {own}.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    default_type application/octet-stream;
{paths}
    server {{
        listen {site.address}:{PORT} backlog=1024;
        root {root};
    }}
}}
"""


class Nginx(Program):
    """A master and one worker, 32 connections."""

    name = "nginx"
    needs = ("nginx", "wrk", "curl")

    def loads(self) -> list[Load]:
        """Return the three loads."""
        return [
            Load("wrk-small", "nginx 600 B, kept connections", "req/s", partial(_run, "small", False)),
            Load("wrk-large", "nginx 100 KB, kept connections", "req/s", partial(_run, "large", False)),
            Load("wrk-new", "nginx 600 B, new connection each", "req/s", partial(_run, "small", True)),
        ]

    def serve(self, site: Site) -> Process:
        """Write the pages and the configuration, and start it."""
        root = site.lab.directory / "www"
        root.mkdir(exist_ok=True)
        (root / site.key).mkdir(exist_ok=True)
        for name, size in _SIZES.items():
            (root / name).write_bytes(b"x" * size)
        file = root / f"{site.key}.conf"
        file.write_text(configuration(site, root))
        return site.spawn(["nginx", "-c", str(file), "-e", "stderr"])

    def answers(self, side: Side) -> bool:
        """Fetch the large page and look at its length."""
        words = ["curl", "-s", "-m", "2", "-o", "/dev/null", "-w", "%{size_download}"]
        try:
            said = side.call([*words, f"http://{side.address}:{PORT}/large"], side.cpus("spread")[1], 5)
            return int(said) == _SIZES["large"]
        except BenchError:
            return False
