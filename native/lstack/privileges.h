/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Once its port is open, a worker needs no privilege any more. */
#ifndef LSTACK_PRIVILEGES_H
#define LSTACK_PRIVILEGES_H

#include <stdint.h>

/* First of all, before there are threads: keeps what the process can do now, and it can never gain more. 0 or -errno. */
int privileges_bound(void);

/* Becomes uid and gid (0: keeps its own) without other groups or capabilities, and hides its memory from other processes. 0 or -errno. */
int privileges_drop(uint32_t uid, uint32_t gid);

#endif
