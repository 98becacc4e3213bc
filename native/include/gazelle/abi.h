/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The shared-memory ABI: everything the supervisor, the workers and the attached applications see of each other. Here is its
 * version and its map; each memory has a header of its own:
 *
 *   group_page.h    what the plan fixes                                supervisor -> workers, applications
 *   worker_page.h   heartbeat, listeners, statistics                   worker -> supervisor, applications
 *   arena.h         sockets and the blocks of their FIFOs (fifo.h)     worker <-> application and its forks
 *   channel.h       bells (bell.h), requests, free sockets             worker <-> process
 *   control.h       the messages of the control socket                 worker <-> process
 *   same_host.h     connections of two programs of one host            application <-> application
 *   explain.h       what `gazelled run --explain` counts               applications -> the command
 *
 * Each field says which side writes it. Memory an application can write is hostile to the worker: the worker keeps its own
 * copy of every size, offset and index, reads each shared field once, and masks it. Integers are host-endian unless a name
 * ends in _be; ports are host-endian; addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d.
 */
#ifndef GAZELLE_ABI_H
#define GAZELLE_ABI_H

#define GZ_ABI_VERSION 1u

#endif
