/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What a worker that serves may still ask of the kernel: a list, made from what workers do. All else ends it, visibly. */
#ifndef LSTACK_CONFINE_H
#define LSTACK_CONFINE_H

#include <stdbool.h>

/*
 * From here on a system call that is not on the list, by any thread, is not carried out: its number goes to the log and SIGSYS
 * ends the worker. `pci`: the port is a PCI device, whose driver asks a little more. 0 or -errno. Needs no_new_privs.
 */
int confine(bool pci);

#endif
