/* SPDX-License-Identifier: MulanPSL-2.0 */
/* A group of fake workers for one test: run directory, group page, and the processes. */
#ifndef SHIM_TESTS_GROUP_H
#define SHIM_TESTS_GROUP_H

#include <stdint.h>
#include <sys/types.h>

#include <gazelle/worker_page.h>

/* The stack's address in tests, and one that is reached through it. Neither is any interface's. */
#define STACK_ADDR "192.0.2.2"
#define PEER_ADDR "192.0.2.9"

/* Makes the run directory and the page, sets GAZELLED_GROUP, starts `workers` fake workers. Exits on failure. */
void group_start(const char *fake_worker, uint32_t workers);

/* SIGKILL; the program must notice by itself. */
void group_kill_worker(uint32_t i);

/* Starts it (again), and returns when it accepts attachments. */
void group_start_worker(uint32_t i);

/* Stops it where it is, and lets it go on. */
void group_hold_worker(uint32_t i);
void group_resume_worker(uint32_t i);

pid_t group_worker_pid(uint32_t i);

/* What it shows of itself, read-only, until the program ends. */
const struct gz_worker_page *group_worker_page(uint32_t i);

/* Ends them all and removes the directory. */
void group_stop(void);

#endif
