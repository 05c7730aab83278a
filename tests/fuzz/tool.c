/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tool's problem.c for fuzz targets: the same calls, but they count; and what files are kept from output.
 */
#define _GNU_SOURCE
#include "tool.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "tool/base/outfile.h"
#include "tool/base/problem.h"

int lines_said;

static void look_at(const char *format, va_list arguments) {
  char text[4096];
  const int length = vsnprintf(text, sizeof text, format, arguments);
  EXPECT(length > 0, "an error line without a word");
  lines_said++;
}

int complain(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  look_at(format, arguments);
  va_end(arguments);
  return TOOL_FAILED;
}

int misuse(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  look_at(format, arguments);
  va_end(arguments);
  return TOOL_MISUSED;
}

void problem_prefix(const char *prefix) { (void)prefix; }
const char *problem_prefix_now(void) { return "tare"; }

void outfile_protect(const char *role, const struct stat *input) { (void)role, (void)input; } /* nothing is written */

int memory_file(const void *bytes, size_t size, char path[64]) {
  const int file = memfd_create("fuzz", MFD_CLOEXEC);
  EXPECT(file >= 0, "no memory file");
  EXPECT(write(file, bytes, size) == (ssize_t)size, "%zu bytes", size);
  snprintf(path, 64, "/proc/self/fd/%d", file);
  return file;
}
