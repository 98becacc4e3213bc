# SPDX-License-Identifier: MulanPSL-2.0
"""The one kind of error a person sees: what is wrong with which object, what is allowed, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from gazelled.base.exitcode import ExitCode


class GazelledError(Exception):
    """Something a person can put right. The command line prints `error: message`, then `hint: hint`, and exits."""

    def __init__(self, message: str, hint: str | None = None, exit_code: ExitCode = ExitCode.UNAVAILABLE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    @property
    def messages(self) -> Sequence[str]:
        """Return what to print, one `error:` line each."""
        return (self.message,)


class ConfigError(GazelledError):
    """Everything that is wrong with one configuration or topology file, all at once."""

    def __init__(self, problems: Sequence[str], hint: str | None = None) -> None:
        super().__init__("\n".join(problems), hint=hint, exit_code=ExitCode.CONFIG)
        self.problems = tuple(problems)

    @property
    def messages(self) -> Sequence[str]:
        """Return each problem as a line of its own."""
        return self.problems
