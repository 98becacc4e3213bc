# SPDX-License-Identifier: MulanPSL-2.0
"""The plan an instance runs by, as it lies in its run directory."""

from __future__ import annotations

from gazelled.base.errors import GazelledError
from gazelled.base.exitcode import ExitCode
from gazelled.instance.run_dir import RunDir
from gazelled.planning.plan import Plan


def running_plan(run_dir: RunDir) -> Plan:
    """Return the plan that runs; GazelledError if none does."""
    try:
        return Plan.from_json(run_dir.plan.read_text())
    except (OSError, ValueError, KeyError, TypeError):
        raise GazelledError(
            f"instance {run_dir.instance}: not running",
            hint=f"gazelled start -i {run_dir.instance}",
            exit_code=ExitCode.NOT_RUNNING,
        ) from None
