/* SPDX-License-Identifier: Apache-2.0 */
/* Statuses, error texts and version. */
#include <stdarg.h>
#include <stdio.h>

#include "backend.h"

int32_t tare_version(void) { return TARE_VERSION_NUMBER; }

const char *tare_status_name(tare_status status) {
  switch (status) {
#define NAME(status) \
  case status:       \
    return #status
    NAME(TARE_STATUS_OK);
    NAME(TARE_STATUS_INVALID_ARGUMENT);
    NAME(TARE_STATUS_INVALID_LABEL);
    NAME(TARE_STATUS_UNSUPPORTED);
    NAME(TARE_STATUS_WORKSPACE_TOO_SMALL);
    NAME(TARE_STATUS_OUT_OF_MEMORY);
    NAME(TARE_STATUS_INVALID_TARGET);
    NAME(TARE_STATUS_NOT_BUILT);
    NAME(TARE_STATUS_NO_DRIVER);
    NAME(TARE_STATUS_DRIVER_TOO_OLD);
    NAME(TARE_STATUS_NO_DEVICE);
    NAME(TARE_STATUS_CUDA_ERROR);
    NAME(TARE_STATUS_CAPTURING);
    NAME(TARE_STATUS_NO_BLAS);
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

tare_status tare_check_workspace(uint64_t needed, uint64_t bytes, tare_error *error) {
  if (needed <= bytes) return TARE_STATUS_OK;
  return tare_fail(error, TARE_STATUS_WORKSPACE_TOO_SMALL,
                   "workspace has %llu bytes; this call needs %llu: see tare_workspace_size and "
                   "tare_context_set_workspace",
                   (unsigned long long)bytes, (unsigned long long)needed);
}
