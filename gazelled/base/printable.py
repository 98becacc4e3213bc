# SPDX-License-Identifier: MulanPSL-2.0
"""Text from other programs, made fit for a terminal.

Names and arguments of processes are chosen by their users, and a log repeats what they sent: none of them is to move
the cursor, or to turn the reading order, of the reader's terminal.
"""

from __future__ import annotations


def printable(line: str) -> str:
    """Return a line with everything that a terminal may act on, or that hides, written as an escape."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


def printable_lines(text: str) -> str:
    """Return a text made printable line by line."""
    return "\n".join(printable(line) for line in text.split("\n"))
