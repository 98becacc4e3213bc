# SPDX-License-Identifier: MulanPSL-2.0
"""What tests are made of: namespaces and processes, instances, hand-made packets, a few programs. No tests here."""
