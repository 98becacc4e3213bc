/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The worker's log: lines on stderr, which the supervisor keeps in worker.<queue_id>.log. It never grows beyond LOG_MAX_BYTES
 * and a little. What a peer or an application can provoke goes through log_warn, which is limited in rate.
 */
#ifndef LSTACK_LOG_H
#define LSTACK_LOG_H

#define LOG_MAX_BYTES (1 << 20)
#define LOG_WARN_BURST 20
#define LOG_WARN_EVERY_NS 10000000000ull

/*
 * Something was refused or dropped, and the worker goes on. Of one kind (one format) LOG_WARN_BURST lines at once and then one
 * each LOG_WARN_EVERY_NS, which says how many were left out before it.
 */
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A step of starting or stopping. Never limited: only for what happens a bounded number of times. */
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
