# SPDX-License-Identifier: MulanPSL-2.0
"""Findings: what a plan has to say about itself. An error keeps it from being started; the rest is only told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing: about which object, why, and what to do."""

    severity: Severity
    object: str  # "process 0", "cpu 3", "lstack_recv_10_0", "port.device eth1"...
    reason: str
    hint: str


def error(subject: str, reason: str, hint: str) -> Finding:
    """Return a finding that keeps the plan from being started."""
    return Finding("error", subject, reason, hint)


def warning(subject: str, reason: str, hint: str) -> Finding:
    """Return a finding about something that works, but not as well as it could."""
    return Finding("warning", subject, reason, hint)


def note(subject: str, reason: str, hint: str) -> Finding:
    """Return a finding that is only good to know."""
    return Finding("note", subject, reason, hint)
