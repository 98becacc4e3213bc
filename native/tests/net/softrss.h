/* SPDX-License-Identifier: MulanPSL-2.0 */
#ifndef TESTS_SOFTRSS_H
#define TESTS_SOFTRSS_H

#include <stdint.h>

/* rte_softrss over `words` 32-bit words in host order. */
uint32_t softrss(uint32_t *tuple, uint32_t words, const uint8_t *key);

#endif
