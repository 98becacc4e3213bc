# SPDX-License-Identifier: MulanPSL-2.0
"""What a session of unit tests has made once is removed with it, in every process of it."""

from __future__ import annotations

from fake_native import remove_fake_native


def pytest_sessionfinish() -> None:
    remove_fake_native()
