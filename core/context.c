/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts: the choice of a device. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "structs.h"
#ifdef TARE_WITH_CUDA
#include "cuda.h"
#endif

static tare_status read_options(tare_context_options *options, const tare_context_options *theirs, tare_error *error) {
  tare_context_options_init(options);
  if (!theirs) return TARE_STATUS_OK;
  const tare_status status = tare_read_struct(options, theirs, &tare_options_layout, error);
  if (status) return status;
  if (options->device < TARE_DEVICE_AUTO || options->device > TARE_DEVICE_CUDA)
    return tare_fail(
        error, TARE_STATUS_INVALID_ARGUMENT,
        "options->device is %d; it must be TARE_DEVICE_AUTO (0), TARE_DEVICE_CPU (1) or TARE_DEVICE_CUDA (2)",
        options->device);
  if (options->device_index < -1)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "options->device_index is %d; it must be >= 0, or -1 for the current "
                     "GPU",
                     options->device_index);
  if (options->threads < 0 || options->threads > 1024)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT,
                     "options->threads is %d; it must be in 1..1024, or 0 for the default", options->threads);
  if (options->reserved)
    return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "options->reserved is %d; it must be 0", options->reserved);
  return TARE_STATUS_OK;
}

static tare_status create_cuda(const tare_context_options *options, tare_backend **backend, tare_error *error) {
#ifdef TARE_WITH_CUDA
  return tare_cuda_backend_create(options, backend, error);
#else
  (void)options, (void)backend;
  return tare_fail(
      error, TARE_STATUS_NOT_BUILT,
      "options->device is TARE_DEVICE_CUDA, but this library was built without CUDA; use TARE_DEVICE_CPU, or "
      "build Tare where the CUDA toolkit is installed");
#endif
}

/** With any other failure a GPU exists. The caller's arrays may be on it, so a CPU context would not help. */
static bool has_no_gpu(tare_status status) {
  return status == TARE_STATUS_NOT_BUILT || status == TARE_STATUS_NO_DRIVER || status == TARE_STATUS_DRIVER_TOO_OLD ||
         status == TARE_STATUS_NO_DEVICE;
}

static tare_status create_backend(const tare_context_options *options, tare_context *context, tare_error *error) {
  if (options->device == TARE_DEVICE_CPU) return tare_cpu_backend_create(options, &context->backend, error);
  if (options->device == TARE_DEVICE_CUDA) return create_cuda(options, &context->backend, error);
  tare_error why;
  const tare_status status = create_cuda(options, &context->backend, &why);
  if (status == TARE_STATUS_OK) return status;
  if (!has_no_gpu(status)) {
    *error = why;
    return status;
  }
  snprintf(context->reason, sizeof context->reason, "%.250s",
           status == TARE_STATUS_NOT_BUILT ? "this library was built without CUDA" : why.text);
  return tare_cpu_backend_create(options, &context->backend, error);
}

tare_status tare_context_create(tare_context **context, const tare_context_options *theirs) {
  tare_error *error = tare_thread_error();
  if (!context) return tare_fail(error, TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  *context = NULL;
  tare_context_options options;
  tare_status status = read_options(&options, theirs, error);
  if (status) return status;
  tare_context *made = calloc(1, sizeof *made);
  if (!made) return tare_fail(error, TARE_STATUS_OUT_OF_MEMORY, "no memory for a context (%zu bytes)", sizeof *made);
  status = create_backend(&options, made, error);
  if (status) {
    free(made);
    return status;
  }
  *context = made;
  return TARE_STATUS_OK;
}

void tare_context_destroy(tare_context *context) {
  if (!context) return;
  context->backend->destroy(context->backend);
  free(context);
}

tare_status tare_context_describe(tare_context *context, tare_context_description *description) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  tare_context_description ours;
  memset(&ours, 0, sizeof ours);
  context->backend->describe(context->backend, &ours);
  memcpy(ours.reason, context->reason, sizeof ours.reason);
  return tare_write_struct(description, &ours, &tare_description_layout, &context->error);
}

tare_status tare_context_set_workspace(tare_context *context, void *workspace, uint64_t bytes) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  if ((workspace == NULL) != (bytes == 0) || (uintptr_t)workspace % 16)
    return tare_fail(&context->error, TARE_STATUS_INVALID_ARGUMENT,
                     "workspace is %p with bytes %llu; it must be aligned to 16 bytes, or NULL with 0", workspace,
                     (unsigned long long)bytes);
  context->workspace = workspace;
  context->workspace_bytes = bytes;
  return TARE_STATUS_OK;
}
