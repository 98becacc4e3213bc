# SPDX-License-Identifier: MulanPSL-2.0
"""`python -m gazelled` is the gazelled command."""

from gazelled.cli import main

if __name__ == "__main__":
    main()
