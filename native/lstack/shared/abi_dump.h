/* SPDX-License-Identifier: MulanPSL-2.0 */
/* `lstack --abi`: the shared-memory ABI as this compiler lays it out, for the test that compares Python's view with it. */
#ifndef LSTACK_ABI_DUMP_H
#define LSTACK_ABI_DUMP_H

/* {"abi_version": 1, "structs": {name: {"size": n, "fields": {name: offset}}}, "counters": [names]} on stdout. */
void abi_dump(void);

#endif
