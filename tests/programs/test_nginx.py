# SPDX-License-Identifier: MulanPSL-2.0
"""nginx with several processes: reloaded under load, sending files, proxy of an upstream on the stack, behind haproxy.

                    namespace S
wrk, curl      haproxy --> nginx --> nginx (upstream)
  |                | liblstack | (same host)
kernel ---- tap -- stack ------+
"""

from __future__ import annotations

import re
from pathlib import Path

from net.instance import Instance
from net.kit import Process, until
from net.test_transfer import digest_of, make_file

from programs.paths import LOOPBACK, accepted_by_workers, family, listens, on_the_stack

PORT, UPSTREAM, PROXY = 8080, 8081, 8090
RELOADS = 4


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
    instance.client.run(*prefix, "curl", "-sSf", "--max-time", "30", "-o", str(fetched), url, timeout=40)
    return digest_of(fetched)


def failed(instance: Instance, nginx: Process, address: str) -> int:
    """Reload under load, each time until new workers serve; return how many requests failed.

    Each request has a connection of its own: one kept alive may be closed by any nginx just as a request comes.
    """
    seconds = RELOADS + 1
    url = f"http://{address}:{PORT}/small"
    wrk = instance.kit.spawn(
        instance.client, "wrk", "-t1", "-c20", f"-d{seconds}s", "-H", "Connection: close", url
    )  # fmt: skip
    for _ in range(RELOADS):
        before = family(nginx.pid) - {nginx.pid}
        nginx.popen.send_signal(1)
        until(lambda before=before: len(family(nginx.pid) - before) > 2, "new nginx workers")  # type: ignore[misc]
        until(lambda before=before: not family(nginx.pid) & before, "the old nginx workers to go")  # type: ignore[misc]
    assert wrk.alive, "the reloads took longer than the load"
    assert wrk.wait(30) == 0, wrk.output()
    said = wrk.output()
    done = re.search(r"(\d+) requests in", said)
    assert done is not None, said
    assert int(done[1]) > 500, said
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    status = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return (sum(map(int, errors.groups())) if errors else 0) + (int(status[1]) if status else 0)


def test_reload_under_load_fails_no_request(instance: Instance) -> None:
    file = configuration(instance.kit.directory / "kernel", instance.peer, 2)
    plain = instance.kit.spawn(instance.client, "nginx", "-c", str(file), "-e", "stderr")
    listens(instance, plain, instance.peer, PORT)
    in_kernel = failed(instance, plain, instance.peer)
    plain.stop()
    nginx = on_stack(instance, 2)
    before = accepted_by_workers(instance)
    on_the = failed(instance, nginx, instance.address)
    assert accepted_by_workers(instance) - before > 500
    assert on_the <= in_kernel, f"failed requests: {on_the} on the stack, {in_kernel} on the kernel"
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
