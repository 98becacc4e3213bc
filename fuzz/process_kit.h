/* SPDX-License-Identifier: MulanPSL-2.0 */
/* An attached process as the worker sees one, by the raw protocol (control.h): what it says and writes is for the input. */
#ifndef FUZZ_PROCESS_KIT_H
#define FUZZ_PROCESS_KIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <gazelle/abi.h>
#include <gazelle/arena.h>
#include <gazelle/channel.h>
#include <gazelle/control.h>
#include <gazelle/worker_page.h>

struct process {
	int fd; /* control socket; -1: it has left */
	struct gz_arena *arena;
	struct gz_channel *channel;
	uint64_t arena_size;
};

/* A control socket; nothing is said yet. */
int process_dial(void);

/* Sends bytes, with descriptors. Never waits; false: it was not taken. */
bool process_say(int fd, const void *bytes, size_t len, const int *fds, uint32_t count);

/* Takes a message that is nothing but descriptors: how many, `most` at most. */
uint32_t process_take(int fd, int *fds, uint32_t most);

struct gz_message process_message(uint32_t kind);

/*
 * One answer, if there is one. What a WELCOME brings is mapped for `p`; of other descriptors the first goes to *end (-1: none)
 * if that is wanted, the others are closed.
 */
bool process_hear(struct process *p, struct gz_message *answer, int *end);

/* Dials, says HELLO and is welcomed. */
void process_attach(struct process *p);

/* A number from its stock; 0: none. */
uint32_t process_number(struct process *p);

/* Posts and rings; no turn. */
void process_post(struct process *p, const struct gz_request *request);

/* Tells the worker that socket n changed. */
void process_ring(struct process *p, uint32_t n);

/* Hangs up and unmaps; no turn. */
void process_leave(struct process *p);

/* Kernel sockets of this process, bound for good: a listener and a datagram socket of each family, on ports of any address. */
enum { KERNEL_TCP4, KERNEL_TCP6, KERNEL_UDP4, KERNEL_UDP6, KERNEL_SOCKETS };
extern struct kernel_socket {
	int fd;
	uint16_t port;
} kernel_socket[KERNEL_SOCKETS];
void process_open_kernel_sockets(void);

/* Socket n asks for the port of a kernel socket, shows it, and has it after the next turn. */
void process_own(struct process *p, uint32_t n, int which);

/* The request that goes with it. */
struct gz_request process_request_for(uint32_t n, int which);

/* The next of a listener's accept queue; 0: none. */
uint32_t process_accept(struct process *p, uint32_t listener);

/* Reads up to `most` bytes of a stream into nowhere, writes that many; what fits. */
void process_read(struct process *p, uint32_t n, uint32_t most);
void process_write(struct process *p, uint32_t n, uint32_t most);

/* Writes a datagram to addr:port. */
void process_send_to(struct process *p, uint32_t n, const uint8_t addr[16], uint16_t port, uint32_t bytes);

#endif
