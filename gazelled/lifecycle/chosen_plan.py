# SPDX-License-Identifier: MulanPSL-2.0
"""Which instance a command is about, and the plan of a configuration for this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gazelled.base.errors import ConfigError
from gazelled.config import DEFAULT_INSTANCE, Uplink, find_config, load_config
from gazelled.configuration.settings import is_instance_name
from gazelled.instance.run_dir import RunDir
from gazelled.planning.plan import Plan

Report = Callable[[str], None]


def instance_name(given: str | None, config_file: Path | None = None) -> str:
    """Return which instance a command is about: -i, else the configuration's, else the default.

    Reads no more of the configuration than that, so that a broken one never keeps an instance from being stopped.
    """
    if given is not None:
        return given
    path = find_config(config_file)
    if path is None:
        return DEFAULT_INSTANCE
    import tomllib

    try:
        name = tomllib.loads(path.read_text())["stack"]["instance"]
    except (OSError, ValueError, KeyError, TypeError):
        return DEFAULT_INSTANCE
    return name if isinstance(name, str) and is_instance_name(name) else DEFAULT_INSTANCE


def make_plan(config_file: Path | None, instance: str | None, uplink: Uplink | None = None) -> Plan:
    """Return the plan of a configuration for this machine; `uplink` is the command line's (--nic)."""
    from gazelled.host.topology_probe import read_topology
    from gazelled.queue_planner import plan

    return plan(load_config(config_file, instance, uplink), read_topology())


def startable(plan: Plan, report: Report) -> Plan:
    """Report a plan's warnings; ConfigError with all its error findings if there are any."""
    if plan.errors:
        raise ConfigError(
            [f"{finding.object}: {finding.reason} (hint: {finding.hint})" for finding in plan.errors],
            hint="`gazelled plan` shows the whole plan; nothing was changed",
        )
    for finding in plan.findings:
        if finding.severity == "warning":
            report(f"warning: {finding.object}: {finding.reason}")
    return plan


def running_config(run_dir: RunDir) -> Path | None:
    """Return the configuration file an instance was started with, None if it had none."""
    try:
        text = (run_dir.path / "config").read_text()
    except OSError:
        return None
    return Path(text) if text else None


def uplink_of(plan: Plan) -> Uplink | None:
    """Return a plan's uplink, None if it has none."""
    device = plan.device
    return Uplink(device.uplink, device.past_firewall) if device.uplink is not None else None


def running_uplink(run_dir: RunDir) -> Uplink | None:
    """Return the uplink of the plan that runs, None if it has none or cannot be read."""
    try:
        return uplink_of(Plan.from_json(run_dir.plan.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None
