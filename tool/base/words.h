/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library's texts name fields of structs. A user of the command line knows only its options.
 */
#ifndef TARE_TOOL_WORDS_H
#define TARE_TOOL_WORDS_H

/** An error text of the library with options in place of fields and constants. Valid until the next call. */
const char *words_of_options(const char *text);

#endif
