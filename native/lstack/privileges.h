/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Once its port is open, a worker needs no privilege any more. */
#ifndef LSTACK_PRIVILEGES_H
#define LSTACK_PRIVILEGES_H

#include <stdint.h>

/* Becomes uid and gid (0: stays who it is) without other groups or capabilities, and can gain none. 0 or -errno. */
int privileges_drop(uint32_t uid, uint32_t gid);

#endif
