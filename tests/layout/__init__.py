# SPDX-License-Identifier: MulanPSL-2.0
"""The layout test: which folder may use which, no circles, nothing too long. `make lint` runs it.

table.toml is the layout as it should be, known.txt what is not so yet; `python -m layout NAME..` looks at some trees.
"""
