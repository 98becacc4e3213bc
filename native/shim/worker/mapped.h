/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The memory that a worker's welcome brings. Both functions return 0 or -errno; the caller closes the descriptors. */
#ifndef SHIM_MAPPED_H
#define SHIM_MAPPED_H

struct attachment;
struct gz_message;

/* All of it, fds[GZ_WELCOME_FDS]; or only this process's channel, where the rest is mapped. */
int mapped_all(struct attachment *a, const struct gz_message *message, const int *fds);
int mapped_channel(struct attachment *a, int fd);

#endif
