/* SPDX-License-Identifier: Apache-2.0 */
/* Statuses, error texts, version, and the reading of versioned structs. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "backend.h"

int32_t tare_version(void) { return TARE_VERSION_NUMBER; }

const char *tare_status_name(tare_status status) {
  switch (status) {
#define NAME(status) \
  case status:       \
    return #status
    NAME(TARE_OK);
    NAME(TARE_INVALID_ARGUMENT);
    NAME(TARE_INVALID_LABEL);
    NAME(TARE_UNSUPPORTED);
    NAME(TARE_WORKSPACE_TOO_SMALL);
    NAME(TARE_OUT_OF_MEMORY);
    NAME(TARE_NOT_BUILT);
    NAME(TARE_NO_DRIVER);
    NAME(TARE_DRIVER_TOO_OLD);
    NAME(TARE_NO_DEVICE);
    NAME(TARE_CUDA_ERROR);
    NAME(TARE_CAPTURING);
    NAME(TARE_NO_BLAS);
#undef NAME
  }
  return "unknown status";
}

tare_error *tare_thread_error(void) {
  static _Thread_local tare_error error;
  return &error;
}

const char *tare_error_text(const tare_context *context) {
  return context ? context->error.text : tare_thread_error()->text;
}

tare_status tare_fail(tare_error *error, tare_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error->text, sizeof error->text, format, arguments);
  va_end(arguments);
  return status;
}

tare_status tare_read_struct(void *out, uint64_t size, const void *in, uint64_t minimum, const char *name,
                             tare_error *error) {
  if (!in) return tare_fail(error, TARE_INVALID_ARGUMENT, "%s is NULL", name);
  uint64_t theirs;
  memcpy(&theirs, in, sizeof theirs);
  if (theirs < minimum || theirs > 65536)
    return tare_fail(error, TARE_INVALID_ARGUMENT,
                     "%s->struct_size is %llu; it is %llu in this version, at least %llu: call tare_%s_init first",
                     name, (unsigned long long)theirs, (unsigned long long)size, (unsigned long long)minimum, name);
  const unsigned char *bytes = in;
  for (uint64_t i = size; i < theirs; i++)
    if (bytes[i])
      return tare_fail(error, TARE_INVALID_ARGUMENT,
                       "%s->struct_size is %llu and byte %llu is set; this library (%d.%d.%d) knows %llu bytes and "
                       "takes a longer struct only if the rest is zero",
                       name, (unsigned long long)theirs, (unsigned long long)i, TARE_VERSION_MAJOR, TARE_VERSION_MINOR,
                       TARE_VERSION_PATCH, (unsigned long long)size);
  memcpy(out, in, theirs < size ? theirs : size);
  memcpy(out, &size, sizeof size);
  return TARE_OK;
}
