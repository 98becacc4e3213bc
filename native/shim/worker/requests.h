/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What this process asks of a worker: by its request ring, and where a descriptor has to come along by the control socket. */
#ifndef SHIM_REQUESTS_H
#define SHIM_REQUESTS_H

#include <gazelle/control.h>

#include "core/attachment.h"

/* A free socket number, 0 if the worker grants none within a moment. Enters `sock` as its holder. */
uint32_t request_number(struct attachment *a, struct sock *sock);

/*
 * Shows the worker the kernel socket that has the port which the next request with number n asks for. 0 or -errno. Before
 * request_post, and not by the child of a fork before its claim.
 */
int request_vouch(struct attachment *a, uint32_t n, int fd);

/* Posts a request and rings for it. 0, or -ECONNRESET if the worker died meanwhile. */
int request_post(struct attachment *a, const struct gz_request *request);

/* Waits until the worker has carried out every request posted so far. a->post held. */
void request_settle(struct attachment *a);

/* Waits until the worker has carried out what this thread has posted, but not for long: one that is stopped holds nobody up. */
void request_await(struct attachment *a);

/* The same of every worker. */
void request_await_all(void);

#endif
