/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The memory an attachment shares with its worker or with the other program of a pair. Addresses stay as long as the process lives
 * (attachment.h), so what is mapped again goes where it was. All return 0 or -errno; the caller closes the descriptors.
 */
#ifndef SHIM_MAPPING_H
#define SHIM_MAPPING_H

#include <stddef.h>

struct gz_message;
struct attachment;

/* Maps `size` bytes of fd (-1: empty memory), over `at` if that is set (the same size was there before). NULL on failure. */
void *mapping_of(int fd, size_t size, int prot, void *at);

/* The same of memory that another process could change: NULL also if its size is not final, so that nothing can pull it away. */
void *mapping_sealed(int fd, size_t size, void *at);

/* All that a worker's welcome brings, fds[GZ_WELCOME_FDS]; or only this process's channel, where the rest is mapped. */
int mapping_all(struct attachment *a, const struct gz_message *message, const int *fds);
int mapping_channel(struct attachment *a, int fd);

int mapping_pair(struct attachment *a, int fd);

#endif
