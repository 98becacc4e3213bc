/* SPDX-License-Identifier: MulanPSL-2.0 */
/*
 * The worker's log: lines on stderr, which the supervisor keeps in worker.<queue_id>.log. What a peer or an application can
 * provoke goes through log_warn, which is limited in rate; the lines left out are counted in the next one.
 */
#ifndef LSTACK_LOG_H
#define LSTACK_LOG_H

/* Something was refused or dropped, and the worker goes on. At most LOG_WARN_PER_SECOND lines a second. */
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A step of starting or stopping. Never limited: only for what happens a bounded number of times. */
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define LOG_WARN_PER_SECOND 20

#endif
