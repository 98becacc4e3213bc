/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Windows on the blocks of an attachment's memory: pieces of it, each mapped when a block in it is first used. The whole is gigabytes
 * of addresses, of which most programs touch little, and which `ulimit -v` counts.
 */
#ifndef SHIM_WINDOW_H
#define SHIM_WINDOW_H

#include <stdint.h>

struct attachment;

/*
 * Keeps a descriptor of the memory behind `fd` (a->arena_size bytes of it) for the windows to come; those that were there before look
 * on it from now on, where they are. 0 or -errno. The caller closes fd.
 */
int window_open(struct attachment *a, int fd);

/* The windows show empty memory from now on, and no others will be opened. */
void window_close(struct attachment *a);

/* Memory of a packed block, NULL if it does not lie in the arena: the peer is mistaken, or hostile. Or if there is no memory. */
uint8_t *window_block(struct attachment *a, uint32_t block);

#endif
