/* SPDX-License-Identifier: MulanPSL-2.0 */
#include "core/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <arch/cc.h>

#include "core/clock.h"

#define KINDS 64u /* of warnings; there are fewer in the source */
#define LINE_MAX_BYTES 512
#define KEPT (64u << 10) /* of a log that is full: its end */

/* Lines of one kind: LOG_WARN_BURST at once, then one each LOG_WARN_EVERY_NS. */
struct kind {
	const char *format;
	uint64_t since_ns; /* `spent` of now: that many intervals after this, all is forgotten */
	uint32_t left_out;
};

/*
 * A log that is full goes on with its end. Nobody else need be there for that: neither the supervisor, nor a right to make
 * files, which a worker has not got.
 */
static void make_room(void)
{
	static char kept[KEPT];
	struct stat st;
	char *from;
	ssize_t n;

	if (fstat(STDERR_FILENO, &st) || !S_ISREG(st.st_mode) || st.st_size < LOG_MAX_BYTES)
		return;
	n = pread(STDERR_FILENO, kept, sizeof(kept), st.st_size - (off_t)sizeof(kept));
	if (ftruncate(STDERR_FILENO, 0) || n <= 0)
		return;
	from = memchr(kept, '\n', (size_t)n); /* whole lines; it is opened to append */
	if (from && write(STDERR_FILENO, from + 1, (size_t)(kept + n - from - 1)) < 0)
		return;
}

/* One write per line, so that lines of several writers never mix. A log that cannot be written is no reason to stop. */
static void emit(const char *level, uint32_t left_out, const char *format, va_list args)
{
	static uint32_t since_look = UINT32_MAX / 2; /* bytes */
	struct timespec now;
	struct tm tm;
	char line[LINE_MAX_BYTES];
	int at, n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	at = (int)strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	at += snprintf(line + at, sizeof(line) - (size_t)at, ".%03ldZ %s: ", now.tv_nsec / 1000000, level);
	if (left_out)
		at += snprintf(line + at, sizeof(line) - (size_t)at, "(after %u more like this) ", left_out);
	n = vsnprintf(line + at, sizeof(line) - (size_t)at - 1, format, args);
	at += n < (int)sizeof(line) - at - 1 ? n : (int)sizeof(line) - at - 2;
	for (int i = 0; i < at; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?'; /* a line is one line, and no terminal obeys it */
	line[at++] = '\n';
	since_look += (uint32_t)at;
	if (since_look >= KEPT) {
		since_look = 0;
		make_room();
	}
	if (write(STDERR_FILENO, line, (size_t)at) < 0)
		return;
}

void log_info(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	emit("info", 0, format, args);
	va_end(args);
}

static struct kind *kind_of(const char *format)
{
	static struct kind kinds[KINDS];
	uint32_t i = 0;

	while (i < KINDS - 1 && kinds[i].format && kinds[i].format != format)
		i++;
	kinds[i].format = format; /* those that find no place share the last */
	return &kinds[i];
}

/* One kind of warning must neither fill the log nor keep another kind out of it. */
static bool may_say(struct kind *kind, uint64_t now)
{
	uint64_t window = (uint64_t)LOG_WARN_BURST * LOG_WARN_EVERY_NS;

	if (kind->since_ns + window < now)
		kind->since_ns = now - window;
	if (kind->since_ns + LOG_WARN_EVERY_NS > now)
		return false;
	kind->since_ns += LOG_WARN_EVERY_NS;
	return true;
}

void log_warn(const char *format, ...)
{
	struct kind *kind = kind_of(format);
	va_list args;

	if (!may_say(kind, monotonic_ns())) {
		kind->left_out++;
		return;
	}
	va_start(args, format);
	emit("warning", kind->left_out, format, args);
	va_end(args);
	kind->left_out = 0;
}

void lwip_assert_failed(const char *what, const char *file, int line)
{
	log_warn("lwIP: %s (%s:%d)", what, file, line);
#ifdef LSTACK_ASSERT_ABORTS /* sanitizer builds want to know; a serving worker goes on */
	abort();
#endif
}
