/* SPDX-License-Identifier: MulanPSL-2.0 */
/* The log: bounded whatever is said how often, and one kind of line keeps no other out. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/log.h"

static char path[] = "/tmp/gz-log-XXXXXX";
static int kept_stderr;

static int into_a_file(void **state)
{
	int fd;

	(void)state;
	strcpy(path, "/tmp/gz-log-XXXXXX");
	fd = mkostemp(path, O_APPEND);
	kept_stderr = dup(STDERR_FILENO);
	return fd < 0 || dup2(fd, STDERR_FILENO) < 0 || close(fd);
}

static int back(void **state)
{
	(void)state;
	dup2(kept_stderr, STDERR_FILENO);
	close(kept_stderr);
	return unlink(path);
}

static char *content(void)
{
	FILE *file = fopen(path, "r");
	char *text = calloc(1, LOG_MAX_BYTES * 2);

	assert_non_null(file);
	text[fread(text, 1, LOG_MAX_BYTES * 2 - 1, file)] = 0;
	fclose(file);
	return text;
}

static uint32_t count(const char *text, const char *what)
{
	uint32_t found = 0;

	while ((text = strstr(text, what)) != NULL) {
		found++;
		text++;
	}
	return found;
}

static void a_million_refusals_are_a_few_lines_and_hide_nothing_else(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 1000000; i++)
		log_warn("process %u refused", i);
	log_warn("something else");
	char *text = content();
	assert_int_equal(count(text, "refused"), LOG_WARN_BURST);
	assert_int_equal(count(text, "something else"), 1);
	free(text);
}

static void a_full_log_goes_on_with_its_end(void **state)
{
	struct stat st;

	(void)state;
	for (uint32_t i = 0; i < 60000; i++) {
		log_info("step %u of very many", i);
		if (i % 1000 == 0) {
			assert_int_equal(fstat(STDERR_FILENO, &st), 0);
			assert_true(st.st_size < LOG_MAX_BYTES + LOG_MAX_BYTES / 8);
		}
	}
	char *text = content();
	assert_int_equal(count(text, "step 59999 of"), 1);
	assert_int_equal(count(text, "step 59000 of"), 1);
	assert_int_equal(count(text, "step 0 of"), 0);
	assert_int_equal(text[0], '2'); /* a year: no line is cut */
	free(text);
}

static void a_line_is_one_line_of_text(void **state)
{
	(void)state;
	log_info("%s", "a\nb\x1b[2Jc");
	char *text = content();
	assert_int_equal(count(text, "a?b?[2Jc\n"), 1);
	free(text);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, into_a_file, back)
	const struct CMUnitTest tests[] = {
		TEST(a_million_refusals_are_a_few_lines_and_hide_nothing_else),
		TEST(a_full_log_goes_on_with_its_end),
		TEST(a_line_is_one_line_of_text),
	};
	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
