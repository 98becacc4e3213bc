# SPDX-License-Identifier: MulanPSL-2.0
"""What a session of unit tests has made once is removed with it, in every process of it."""

from __future__ import annotations

from fake_native import remove_fake_native
from hypothesis import HealthCheck, settings

# How long an example takes tells what else the machine does, and nothing of what is tested.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_sessionfinish() -> None:
    remove_fake_native()
