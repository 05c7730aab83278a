/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Error lines. Every error passes through say(), so that it is always exactly one line.
 */
#include "problem.h"

#include <stdarg.h>
#include <stdio.h>

#include "progress.h"

static const char *prefix = "tare";

void problem_prefix(const char *text) { prefix = text; }
const char *problem_prefix_now(void) { return prefix; }

static void say(const char *format, va_list arguments, const char *tail) {
  char text[2048];
  vsnprintf(text, sizeof text, format, arguments);
  for (char *at = text; *at; at++) {
    if ((unsigned char)*at < 0x20 || (unsigned char)*at == 0x7f) *at = '?';
  }
  progress_end();
  fprintf(stderr, "%s: %s%s%s%s\n", prefix, text, tail ? " (see " : "", tail ? prefix : "", tail ? tail : "");
}

int complain(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say(format, arguments, NULL);
  va_end(arguments);
  return TOOL_FAILED;
}

int misuse(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say(format, arguments, " --help)");
  va_end(arguments);
  return TOOL_MISUSED;
}
