# SPDX-License-Identifier: MulanPSL-2.0
"""`gazelled top` in a terminal of 80x24: a screen has the workers, the program and the rate; keys sort and quit.

redis-benchmark -- kernel -- tap -- 2 workers -- redis-server
"""

from __future__ import annotations

import re
import shlex
import subprocess

from kit.instance import on_tap
from kit.lab import Kit
from kit.redis import PORT, start_redis
from kit.waiting import until


def test_a_screen_has_workers_program_and_rate(kit: Kit) -> None:
    instance = on_tap(kit, 2)
    instance.start()
    redis = start_redis(instance)
    terminal = ["tmux", "-L", kit.prefix, "-f", "/dev/null"]

    def tmux(*words: str) -> str:
        done = subprocess.run([*terminal, *words], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    load = kit.spawn(
        instance.client, "redis-benchmark", "-h", instance.address, "-p", str(PORT), "-t", "get", "-l", "-q", "-c", "1"
    )
    command = shlex.join(instance.home.argv(*instance.argv("top", "--every", "0.5")))
    kit.later(lambda: subprocess.run([*terminal, "kill-server"], capture_output=True, timeout=30, check=False))
    tmux("new-session", "-d", "-x", "80", "-y", "24", f"{command}; echo status $?; stty -a; exec cat")

    def rates() -> list[list[str]]:
        """Return RX/S and TX/S of each worker on the screen."""
        rows = [line.split() for line in tmux("capture-pane", "-p").splitlines() if line.startswith("gazellelstack")]
        return [row[3:5] for row in rows if len(row) == 9]

    assert load.alive
    until(
        lambda: len(rates()) == 2 and any(float(rx.rstrip("kM")) > 0 for rx, _ in rates()), "the rate of a worker", 20
    )
    screen = tmux("capture-pane", "-p").splitlines()
    assert len(screen) == 24
    assert max(map(len, screen)) <= 80
    assert "2 of 2 workers run" in screen[0]
    assert any(re.search(rf"\b{redis.pid}\b.* redis-server", line) for line in screen)
    assert float(re.findall(r"frames in ([\d.]+)[kM]?/s", screen[1])[0]) > 0
    tmux("send-keys", "b")
    until(lambda: "(by bytes)" in tmux("capture-pane", "-p"), "the workers to be sorted by bytes")
    tmux("send-keys", "q")
    until(lambda: "status 0" in tmux("capture-pane", "-p"), "it to end")
    left = tmux("capture-pane", "-p")
    assert "-icanon" not in left
    assert "workers run" not in left  # the screen is the one from before
    wide = instance.call("top", "--once", "--columns", "160", "--lines", "50", "--every", "0.3").stdout.splitlines()
    assert len(wide) == 50
    assert "STEERED/S" in "\n".join(wide)
