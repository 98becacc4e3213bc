/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What `gazelled status` is told of this process. The first worker of the group takes it over to its page. */
#ifndef SHIM_COUNTS_H
#define SHIM_COUNTS_H

#include <gazelle/kernel_reason.h>

/* A socket entered or left the kernel path. */
void count_kernel(enum gz_kernel_reason reason, int by);

/* A connection with a program of this host began or ended. */
void count_paired(int by);

/* A connection of this host was dropped, since what it was called could not be. */
void count_refused(void);

#endif
