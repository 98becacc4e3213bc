/* SPDX-License-Identifier: MulanPSL-2.0 */
/* What sockets there are, for who looks on (gazelle/connections.h): a part of them at a time, so that traffic does not wait. */
#ifndef LSTACK_SURVEY_H
#define LSTACK_SURVEY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <gazelle/connections.h>

struct sockets;

struct survey {
	struct sockets *sockets;
	uint64_t cursor; /* where to go on; 0: at the start. Anybody may have written it */
	bool everybodys; /* else only those of programs of `uid` */
	uid_t uid;
	struct gz_connection *record; /* GZ_CONNECTIONS_AT_ONCE of them */
	uint32_t count;
	/* Its own. */
	uint64_t until_ns;
	uint32_t skip, passed, looked; /* sockets: of the place at hand; in all */
	bool full;
};

/* Adds records until there is no room, no time or no socket left, and moves the cursor. */
void survey_go_on(struct survey *survey);

#endif
