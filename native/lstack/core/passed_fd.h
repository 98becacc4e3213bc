/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Descriptors that came from another process. */
#ifndef LSTACK_PASSED_FD_H
#define LSTACK_PASSED_FD_H

/* Closes one; -1: there is none. The worker does not wait for what a socket of the other process has still to send. */
void passed_fd_close(int fd);

#endif
