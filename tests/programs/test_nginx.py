# SPDX-License-Identifier: MulanPSL-2.0
"""nginx with several processes: reloaded under load, sending files, proxy of an upstream on the stack, behind haproxy.

                    namespace S
wrk, curl      haproxy --> nginx --> nginx (upstream)
  |                | liblstack | (same host)
kernel ---- tap -- stack ------+
"""

from __future__ import annotations

import re
import signal
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from kit.holdings import Holdings, assert_nothing_lost, settled
from kit.instance import Instance
from kit.lab import Process, full
from kit.transfer import digest_of, make_file
from kit.waiting import until

from programs.paths import LOOPBACK, accepted_by_workers, asker, counted, family, listens, on_the_stack

PORT, UPSTREAM, PROXY = 8080, 8081, 8090
PROCESSES = 4
TIME_WAITS = 28_232 * 300  # bytes: each port a client has may wait for its time to end
RELOADS = 60 if full() else 6
CLIENT = Path(__file__).with_name("clients.py")


def configuration(directory: Path, address: str, processes: int) -> Path:
    directory.mkdir()
    file = directory / "nginx.conf"
    file.write_text(f"""
        user root;
        daemon off;
        worker_processes {processes};
        pid {directory}/pid;
        error_log stderr warn;
        events {{ worker_connections 512; }}
        http {{
            access_log off;
            sendfile on;
            keepalive_requests 1000000;
            client_body_temp_path {directory}/body;
            proxy_temp_path {directory}/proxy;
            server {{
                listen {address}:{PORT};
                listen {LOOPBACK}:{PORT};
                root {directory.parent};
                location = /small {{ return 200 "small\\n"; }}
                location /up/ {{ proxy_pass http://{address}:{UPSTREAM}/; proxy_buffering off; }}
            }}
            server {{ listen {address}:{UPSTREAM}; root {directory.parent}; }}
        }}
    """)
    return file


def on_stack(instance: Instance, processes: int) -> Process:
    file = configuration(instance.kit.directory / "stack", instance.address, processes)
    nginx = instance.spawn("nginx", "-c", str(file), "-e", "stderr")
    listens(instance, nginx, instance.address, PORT)
    return nginx


def fetch(instance: Instance, prefix: list[str], url: str) -> str:
    fetched = instance.kit.directory / "fetched"
    where = asker(instance, str(urlsplit(url).hostname), bool(prefix))
    where.run(*prefix, "curl", "-sSf", "--max-time", "30", "-o", str(fetched), url, timeout=40)
    return digest_of(fetched)


def reload(nginx: Process) -> None:
    """Have nginx replace its workers, and wait until it has."""
    before = family(nginx.pid) - {nginx.pid}
    nginx.popen.send_signal(signal.SIGHUP)
    until(lambda: len(family(nginx.pid) - before) == 1 + PROCESSES, "new nginx workers")
    until(lambda: not family(nginx.pid) & before, "the old nginx workers to go")


def at_rest(instance: Instance) -> list[Holdings]:
    """Return what the workers hold when no client is there."""
    until(lambda: not counted(instance)["connections"], "the last connections to end", 20)
    return settled(instance)


def test_reload_every_second_fails_no_request_and_leaves_nothing(instance: Instance) -> None:
    nginx = on_stack(instance, PROCESSES)
    before: list[Holdings] = []
    for reloads in (2, RELOADS):  # what is made once is made by the first
        client = instance.kit.spawn(
            instance.client, sys.executable, str(CLIENT), "closing", instance.address, str(PORT)
        )
        began = time.monotonic()
        for second in range(reloads):
            until(lambda due=began + second: time.monotonic() >= due, "the next second")  # type: ignore[misc]
            reload(nginx)
        client.stop()
        said = re.search(r"(\d+) done, (\d+) failed", client.output())
        assert said is not None, client.output()
        assert int(said[1]) > 100 * reloads, client.output()
        assert int(said[2]) == 0, client.output()
        held = at_rest(instance)
        before = before or held
    assert_nothing_lost(before, held, slack=TIME_WAITS)
    on_the_stack(instance, nginx)
    attached = {row["pid"] for row in instance.status()["applications"]}
    assert attached <= family(nginx.pid), "attachments of nginx workers that are gone"
    nginx.stop()
    until(lambda: not instance.status()["applications"], "all attachments to go")


def test_files_and_an_upstream_on_the_stack(instance: Instance) -> None:
    _, digest = make_file(instance.kit.directory, 16)
    nginx = on_stack(instance, 4)
    for prefix in ([], instance.attached()):
        for address in (instance.address, LOOPBACK):
            for path in ("file", "up/file"):
                assert fetch(instance, prefix, f"http://{address}:{PORT}/{path}") == digest
    on_the_stack(instance, nginx)


def test_wrk_on_the_stack(instance: Instance) -> None:
    nginx = on_stack(instance, 2)
    url = f"http://{instance.address}:{PORT}/small"
    before = accepted_by_workers(instance)
    said = instance.home.run(*instance.attached("wrk", "-t2", "-c20", "-d1s", url))
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said
    assert accepted_by_workers(instance) == before, "same-host connections went through a worker"
    on_the_stack(instance, nginx)


def test_haproxy_before_nginx(instance: Instance) -> None:
    _, digest = make_file(instance.kit.directory, 16)
    nginx = on_stack(instance, 2)
    file = instance.kit.directory / "haproxy.cfg"
    file.write_text(f"""
global
    nbthread 2
    maxconn 400
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend front
    bind {instance.address}:{PROXY}
    default_backend back
backend back
    server one {instance.address}:{PORT}
""")
    haproxy = instance.spawn("haproxy", "-db", "-f", str(file))
    listens(instance, haproxy, instance.address, PROXY)
    assert fetch(instance, [], f"http://{instance.address}:{PROXY}/file") == digest
    said = instance.client.run("wrk", "-t1", "-c20", "-d1s", f"http://{instance.address}:{PROXY}/small")
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said
    on_the_stack(instance, nginx, haproxy)
