/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Memory shared with a peer. Addresses stay as long as the process lives (attachment.h), so what is mapped again goes where it
 * was. The caller closes the descriptors.
 */
#ifndef SHIM_MAPPING_H
#define SHIM_MAPPING_H

#include <stddef.h>

/* Maps `size` bytes of fd (-1: empty memory), over `at` if that is set (the same size was there before). NULL on failure. */
void *mapping_of(int fd, size_t size, int prot, void *at);

/* The same of memory that another process could change: NULL also if its size is not final, so that nothing can pull it away. */
void *mapping_sealed(int fd, size_t size, void *at);

#endif
