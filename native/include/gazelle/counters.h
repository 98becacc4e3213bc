/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * Every counter of a worker page: name, unit, kind, meaning. The worker alone writes them; a `total` only grows while the worker
 * lives and starts at 0 with it, a `gauge` is how many there are now. Python has the same table (gazelled/pages/counters.py), and
 * a test compares. Add at the end only: readers go by position.
 */
#ifndef GAZELLE_COUNTERS_H
#define GAZELLE_COUNTERS_H

/* clang-format off */
#define GZ_COUNTERS(X) \
	X(turns, "turns", total, "passes of the worker's loop") \
	X(sleeps, "sleeps", total, "times the worker slept because nothing was to do") \
	X(wakeups_written, "system calls", total, "programs the worker woke by a system call; others looked by themselves") \
	X(rx_packets, "frames", total, "frames taken from the port; one of a tap may be a super-frame of 64 KiB") \
	X(rx_bytes, "bytes", total, "bytes of these frames, headers included") \
	X(tx_packets, "frames", total, "frames given to the port") \
	X(tx_bytes, "bytes", total, "bytes of these frames, headers included") \
	X(rx_dropped, "frames", total, "received frames that were for nobody here, malformed, or met no memory") \
	X(tx_dropped, "frames", total, "frames the port had no room for; TCP sends them again") \
	X(rx_bad_checksum, "frames", total, "received frames whose checksum was wrong") \
	X(alloc_failed, "buffers", total, "buffers that were wanted and not there") \
	X(steered_out, "frames", total, "frames handed to the worker whose connection they belong to") \
	X(steered_in, "frames", total, "frames that other workers handed to this one") \
	X(steer_dropped, "frames", total, "frames lost between two workers: the other's ring was full, or it does not run") \
	X(connections, "connections", gauge, "TCP connections this worker has now") \
	X(accepted, "connections", total, "connections that clients opened") \
	X(connected, "connections", total, "connections that attached programs opened over the wire") \
	X(resets_sent, "segments", total, "connections ended by a reset of ours") \
	X(resets_received, "segments", total, "connections ended by a reset of the peer") \
	X(retransmits, "segments", total, "segments sent again") \
	X(listen_overflow, "connections", total, "handshakes refused because the program's accept queue was full") \
	X(requests, "requests", total, "requests of programs carried out: connect, listen, bind, close") \
	X(attachments, "processes", gauge, "processes attached now") \
	X(attached_total, "processes", total, "processes that have attached") \
	X(detached_hostile, "processes", total, "processes cut off because they broke the protocol of the shared memory") \
	X(sockets, "sockets", gauge, "sockets that attached processes hold on this worker now") \
	X(mbufs_free, "buffers", gauge, "packet buffers free now") \
	X(rx_fifo_bytes, "bytes", total, "received bytes put into the programs' FIFOs") \
	X(tx_fifo_bytes, "bytes", total, "bytes taken from the programs' FIFOs") \
	X(no_match, "frames", total, "TCP segments for which there was neither connection nor listener") \
	X(datagrams_in, "datagrams", total, "datagrams given to programs") \
	X(datagrams_out, "datagrams", total, "datagrams sent for programs") \
	X(datagrams_dropped, "datagrams", total, "datagrams dropped because the program's FIFO was full") \
	X(syncookies_sent, "segments", total, "SYNs answered by a cookie because too many handshakes were half open") \
	X(syncookies_accepted, "connections", total, "connections made from such a cookie") \
	X(syncookies_failed, "segments", total, "ACKs that looked like a cookie's and were none") \
	X(pairs_refused, "connections", total, "connections between programs of this host that were refused, as the programs say")
/* clang-format on */

#endif
