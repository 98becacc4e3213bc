# SPDX-License-Identifier: MulanPSL-2.0
"""What an instance consists of while it runs: its run directory, its workers, its changes to the host.

worker_state decides when a worker hangs and when it is started again; host_setup refuses a host that is not fit,
before it changes it.

Stands on base, configuration, planning, pages, host and nics. gazelled.supervisor puts the parts to work. Must not know
how a person starts or watches an instance.
"""
