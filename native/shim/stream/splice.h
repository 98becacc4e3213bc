/* SPDX-License-Identifier: MulanPSL-2.0 */
/* splice() between a stream of the stack and a pipe: by copying, a pipe's buffer at a time. */
#ifndef SHIM_SPLICE_H
#define SHIM_SPLICE_H

#include <stdbool.h>
#include <sys/types.h>

/* The descriptor stands for a STREAM. */
bool stream_of(int fd);

/* Bytes moved, 0 at the end, or -errno. flags: SPLICE_F_NONBLOCK; the others are hints. No locks held. */
ssize_t splice_from_stream(int in_fd, int pipe_fd, const off_t *pipe_off, size_t len, unsigned int flags);
ssize_t splice_to_stream(int pipe_fd, const off_t *pipe_off, int out_fd, size_t len, unsigned int flags);

#endif
