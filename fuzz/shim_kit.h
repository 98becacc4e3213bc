/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The application's side: this program has the library in front of the C library, as a preloaded one would stand, and is
 * attached to a worker without a network, which is a process of its own (the one that scripts/build makes).
 */
#ifndef FUZZ_SHIM_KIT_H
#define FUZZ_SHIM_KIT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define SHIM_ADDR "10.91.0.2"

/* Once, from LLVMFuzzerInitialize. Ends the process if the worker does not start. */
void shim_begin(const char *program);

/* A listener of ours on the stack's address; its own address in *at. Non-blocking. */
int shim_listen(struct sockaddr_in *at);

/* A datagram socket of ours, likewise. */
int shim_bind(void);

/* A connection to it: both ends are here, non-blocking. False: it did not come about. */
bool shim_pair(int listener, const struct sockaddr_in *at, int ends[2]);

/* Goes through the calls a program makes on a socket, whatever it may be by now. None of them may wait. */
void shim_use(int fd, uint8_t how);

/* The C library's functions, which a hostile program calls: the library does not see it. */
long shim_bare_sendmsg(int fd, const struct msghdr *msg, int flags);
long shim_bare_recvmsg(int fd, struct msghdr *msg, int flags);

/* Sends bytes with descriptors that way; takes some. */
bool shim_post(int to, const void *bytes, size_t len, const int *fds, uint32_t count);
long shim_fetch(int from, void *bytes, size_t len, int *fds, uint32_t most, uint32_t *count);

#endif
