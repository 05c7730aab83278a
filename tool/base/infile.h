/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input files. "-" is standard input, which one option can read. A pipe ("-", or a shell's <(command)) has no size that
 * a header can be checked against, so its bytes go into a temporary file without a name first.
 */
#ifndef TARE_TOOL_INFILE_H
#define TARE_TOOL_INFILE_H

#include <stdint.h>
#include <stdio.h>

/**
 * Opens the input of `role` ("--logits") for reading, and registers it with outfile_protect. `expected` ("a .npy file")
 * is for the error line. Writes its size in bytes. NULL after complaining.
 */
FILE *infile_open(const char *role, const char *path, const char *expected, int64_t *size);

#endif
