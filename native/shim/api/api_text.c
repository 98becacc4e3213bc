/* SPDX-License-Identifier: MulanPSL-2.0 */
/* Text formatted straight to a descriptor: the C library would write it where we are not. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/api.h"
#include "core/fdtable.h"
#include "core/real.h"

/* The fortified forms have no prototypes in public headers. */
EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...) __attribute__((format(printf, 3, 4)));
EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list ap) __attribute__((format(printf, 3, 0)));

static int write_text(int fd, const char *format, va_list ap) __attribute__((format(printf, 2, 0)));

static int write_text(int fd, const char *format, va_list ap)
{
	char *text;
	int len = vasprintf(&text, format, ap), done = 0;

	while (len >= 0 && done < len) {
		ssize_t n = write(fd, text + done, (size_t)(len - done));

		if (n < 0)
			break;
		done += (int)n;
	}
	if (len >= 0)
		free(text);
	return len >= 0 && done == len ? len : -1;
}

EXPORT int vdprintf(int fd, const char *format, va_list ap)
{
	return fd_sock(fd) ? write_text(fd, format, ap) : REAL(vdprintf)(fd, format, ap);
}

EXPORT int dprintf(int fd, const char *format, ...)
{
	va_list ap;
	int r;

	va_start(ap, format);
	r = vdprintf(fd, format, ap);
	va_end(ap);
	return r;
}

EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list ap)
{
	(void)flag; /* the C library would also refuse %n in writable memory; a socket gets its text all the same */
	return vdprintf(fd, format, ap);
}

EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...)
{
	va_list ap;
	int r;

	va_start(ap, format);
	r = __vdprintf_chk(fd, flag, format, ap);
	va_end(ap);
	return r;
}
