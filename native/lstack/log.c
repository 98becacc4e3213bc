/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "log.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <arch/cc.h>

/* One write per line, so that lines of several writers never mix. A log that cannot be written is no reason to stop. */
static void emit(const char *level, const char *format, va_list args)
{
	struct timespec now;
	struct tm tm;
	char line[512];
	int at, n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	at = (int)strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	at += snprintf(line + at, sizeof(line) - (size_t)at, ".%03ldZ %s: ", now.tv_nsec / 1000000, level);
	n = vsnprintf(line + at, sizeof(line) - (size_t)at - 1, format, args);
	at += n < (int)sizeof(line) - at - 1 ? n : (int)sizeof(line) - at - 2;
	line[at++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)at) < 0)
		return;
}

void log_info(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	emit("info", format, args);
	va_end(args);
}

void log_warn(const char *format, ...)
{
	static time_t second;
	static unsigned int lines, left_out;
	struct timespec now;
	va_list args;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec != second) {
		second = now.tv_sec;
		lines = 0;
		if (left_out)
			log_info("%u warnings left out", left_out);
		left_out = 0;
	}
	if (++lines > LOG_WARN_PER_SECOND) {
		left_out++;
		return;
	}
	va_start(args, format);
	emit("warning", format, args);
	va_end(args);
}

void lwip_assert_failed(const char *what, const char *file, int line)
{
	log_warn("lwIP: %s (%s:%d)", what, file, line);
#ifdef LSTACK_ASSERT_ABORTS /* sanitizer builds want to know; a serving worker goes on */
	abort();
#endif
}
