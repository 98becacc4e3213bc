/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The socket options of one socket: what the program has set. */
#ifndef SHIM_OPTIONS_H
#define SHIM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

/* Options we answer ourselves, in the order of the rows in sockopt.c. */
enum option {
	OPTION_NODELAY,
	OPTION_CORK,
	OPTION_KEEPALIVE,
	OPTION_KEEPIDLE,
	OPTION_KEEPINTVL,
	OPTION_KEEPCNT,
	OPTION_USER_TIMEOUT,
	OPTION_MAXSEG,
	OPTION_RCVBUF,
	OPTION_SNDBUF,
	OPTION_TOS,
	OPTION_TTL,
	OPTION_REUSEADDR,
	OPTION_REUSEPORT,
	OPTION_QUICKACK,
	OPTION_DEFER_ACCEPT,
	OPTION_PRIORITY,
	OPTION_RCVLOWAT,
	OPTION_OOBINLINE,
	OPTION_V6ONLY,
	OPTION_SYNCNT,
	OPTION_LINGER2,
	OPTION_WINDOW_CLAMP,
	OPTION_NOTSENT_LOWAT,
	OPTION_TCLASS,
	OPTION_HOPS,
	OPTION_BROADCAST,
	OPTION_DONTROUTE,
	OPTIONS
};

struct options {
	uint64_t known; /* bit o: the program has set option o, or it was inherited */
	int32_t value[OPTIONS];
	bool linger; /* SO_LINGER */
	int32_t linger_s;
	int64_t rcvtimeo_ns; /* SO_RCVTIMEO; 0 = for ever, negative = not at all */
	int64_t sndtimeo_ns;
};

/* How long a blocking call waits under such a time-out, as wait_for takes it: -1 = for ever. */
static inline int64_t options_patience(int64_t timeo_ns)
{
	return timeo_ns > 0 ? timeo_ns : timeo_ns < 0 ? 0 : -1;
}

#endif
