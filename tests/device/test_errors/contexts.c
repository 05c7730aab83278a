/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts, error texts and names. */
#define _GNU_SOURCE
#include "errors.h"

/* ---- Contexts -------------------------------------------------------------------------------------------------- */

static void expect_no_context(tare_context_options options, tare_status want, const char *name, const char *value,
                              int line) {
  tare_context *context = (tare_context *)&options; /* anything but NULL */
  const tare_status status = tare_context_create(&context, &options);
  if (status != want) cr_assert_fail("line %d: %s", line, tare_status_name(status));
  cr_assert_null(context);
  expect_text(line, tare_error_text(NULL), name, value);
}

#define NO_CONTEXT(name, value, change)                                            \
  do {                                                                             \
    tare_context_options o;                                                        \
    tare_context_options_init(&o);                                                 \
    change;                                                                        \
    expect_no_context(o, TARE_STATUS_INVALID_ARGUMENT, (name), (value), __LINE__); \
  } while (0)

Test(errors, context_options) {
  NO_CONTEXT("struct_size", "0", o.struct_size = 0);
  NO_CONTEXT("device", "7", o.device = 7);
  NO_CONTEXT("device", "-1", o.device = -1);
  NO_CONTEXT("threads", "-1", o.threads = -1);
  NO_CONTEXT("threads", "1025", o.threads = 1025);
  NO_CONTEXT("device_index", "-2", o.device_index = -2);
  NO_CONTEXT("reserved", "1", o.reserved = 1);
}

Test(errors, unknown_instruction_set) {
  setenv("TARE_ISA", "sse9", 1);
  NO_CONTEXT("TARE_ISA", "sse9", o.device = TARE_DEVICE_CPU);
  setenv("TARE_ISA", "baseline", 1);
  tare_context *context = NULL;
  cr_assert_eq(tare_context_create(
                   &context, &(tare_context_options){.struct_size = 16, .device = TARE_DEVICE_CPU, .device_index = -1}),
               TARE_STATUS_OK, "%s", tare_error_text(NULL));
  tare_context_destroy(context);
}

/* Asked for CUDA: a context, or a status that says which part is missing and a text that says what to do. */
Test(errors, cuda_that_is_not_there) {
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CUDA;
  tare_context *context = NULL;
  const tare_status status = tare_context_create(&context, &options);
  const char *text = tare_error_text(NULL);
  if (status == TARE_STATUS_OK) {
    tare_context_destroy(context);
    cr_skip_test("a GPU works here");
  }
  cr_assert_null(context);
  switch (status) {
    case TARE_STATUS_NOT_BUILT:
      expect_text(__LINE__, text, "built", NULL);
      break;
    case TARE_STATUS_NO_DRIVER:
    case TARE_STATUS_DRIVER_TOO_OLD:
      expect_text(__LINE__, text, "driver", NULL);
      break;
    case TARE_STATUS_NO_DEVICE:
      expect_text(__LINE__, text, "GPU", NULL);
      break;
    default:
      cr_assert_fail("%s: %s", tare_status_name(status), text);
  }
}

Test(errors, auto_says_why_not_the_gpu) {
  tare_context *context = NULL;
  cr_assert_eq(tare_context_create(&context, NULL), TARE_STATUS_OK, "%s", tare_error_text(NULL));
  tare_context_description d = {.struct_size = sizeof d};
  cr_assert_eq(tare_context_describe(context, &d), TARE_STATUS_OK, "%s", tare_error_text(context));
  if (d.device == TARE_DEVICE_CPU) {
    cr_assert_neq(d.reason[0], '\0', "no reason");
    cr_assert_eq(d.device_index, -1);
    cr_assert_geq(d.threads, 1);
  } else {
    cr_assert_eq(d.device, TARE_DEVICE_CUDA);
    cr_assert_geq(d.device_index, 0);
    cr_assert_eq(d.reason[0], '\0');
  }
  cr_assert(d.device_name[0] != '\0' && d.instruction_set[0] != '\0');
  tare_context_destroy(context);
}

Test(errors, description_sizes) {
  FOR_EACH_DEVICE(device) {
    tare_context_description d;
    memset(&d, 0x5A, sizeof d);
    d.struct_size = 0;
    cr_assert_eq(tare_context_describe(device->context, &d), TARE_STATUS_INVALID_ARGUMENT);
    expect_text(__LINE__, tare_error_text(device->context), "struct_size", "0");
    memset(&d, 0x5A, sizeof d);
    d.struct_size = offsetof(tare_context_description, device_name);
    cr_assert_eq(tare_context_describe(device->context, &d), TARE_STATUS_OK);
    cr_assert_eq(d.device, device->kind);
    for (size_t i = 0; i < sizeof d.device_name; i++) cr_assert_eq(d.device_name[i], 0x5A, "written past struct_size");
  }
}

/* ---- Error texts ----------------------------------------------------------------------------------------------- */

Test(errors, texts_belong_to_their_context) {
  FOR_EACH_DEVICE(device) {
    tare_context *other = device_context(device, 0);
    cr_assert_str_eq(tare_error_text(other), "");
    base b;
    base_open(&b, device, TARE_LOSS_SIGMOID_FOCAL);
    b.loss.focal.gamma = -3;
    cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_INVALID_ARGUMENT);
    b.context = other;
    b.loss.focal.gamma = 2;
    b.loss.focal.alpha = 77;
    cr_assert_eq(make_call(&b, EVALUATE), TARE_STATUS_INVALID_ARGUMENT);
    expect_text(__LINE__, tare_error_text(device->context), "gamma", "-3");
    expect_text(__LINE__, tare_error_text(other), "alpha", "77");
    cr_assert_null(strstr(tare_error_text(NULL), "gamma"));
    base_close(&b);
    tare_context_destroy(other);
  }
}

static void *fail_in_a_thread(void *argument) {
  (void)argument;
  double beta = 0;
  if (*tare_error_text(NULL) != '\0') return (void *)"a new thread has a text";
  if (tare_beta_from_volume(0.125, &beta) != TARE_STATUS_INVALID_ARGUMENT) return (void *)"no error";
  return strstr(tare_error_text(NULL), "0.125") != NULL ? NULL : (void *)"another text";
}

Test(errors, texts_without_a_context_belong_to_their_thread) {
  double number = 0;
  pthread_t thread;
  void *complaint = NULL;
  cr_assert_str_eq(tare_error_text(NULL), "");
  cr_assert_eq(tare_effective_number(1, 8.5, &number), TARE_STATUS_INVALID_ARGUMENT);
  cr_assert_eq(pthread_create(&thread, NULL, fail_in_a_thread, NULL), 0);
  pthread_join(thread, &complaint);
  cr_assert_null(complaint, "%s", (char *)complaint);
  expect_text(__LINE__, tare_error_text(NULL), "beta", "8.5");
}

Test(errors, status_names) {
  static const struct {
    tare_status status;
    const char *name;
  } names[] = {{TARE_STATUS_OK, "TARE_STATUS_OK"},
               {TARE_STATUS_INVALID_ARGUMENT, "TARE_STATUS_INVALID_ARGUMENT"},
               {TARE_STATUS_INVALID_LABEL, "TARE_STATUS_INVALID_LABEL"},
               {TARE_STATUS_UNSUPPORTED, "TARE_STATUS_UNSUPPORTED"},
               {TARE_STATUS_WORKSPACE_TOO_SMALL, "TARE_STATUS_WORKSPACE_TOO_SMALL"},
               {TARE_STATUS_OUT_OF_MEMORY, "TARE_STATUS_OUT_OF_MEMORY"},
               {TARE_STATUS_NOT_BUILT, "TARE_STATUS_NOT_BUILT"},
               {TARE_STATUS_NO_DRIVER, "TARE_STATUS_NO_DRIVER"},
               {TARE_STATUS_DRIVER_TOO_OLD, "TARE_STATUS_DRIVER_TOO_OLD"},
               {TARE_STATUS_NO_DEVICE, "TARE_STATUS_NO_DEVICE"},
               {TARE_STATUS_CUDA_ERROR, "TARE_STATUS_CUDA_ERROR"},
               {TARE_STATUS_CAPTURING, "TARE_STATUS_CAPTURING"},
               {TARE_STATUS_NO_BLAS, "TARE_STATUS_NO_BLAS"}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    cr_assert_str_eq(tare_status_name(names[i].status), names[i].name);
  }
  cr_assert_str_eq(tare_status_name((tare_status)999), "unknown status");
  cr_assert_str_eq(tare_status_name((tare_status)-1), "unknown status");
}

/* ---- Names ----------------------------------------------------------------------------------------------------- */

Test(errors, loss_names_go_both_ways) {
  for (int32_t i = 0; i < tare_loss_count(); i++) {
    const int32_t kind = tare_loss_kind_at(i);
    const char *name = tare_loss_name(kind);
    cr_assert_not_null(name);
    cr_assert_eq(tare_loss_kind_from_name(name), kind, "%s", name);
  }
  cr_assert_str_eq(tare_loss_name(TARE_LOSS_SIGMOID_FOCAL), "sigmoid-focal");
  cr_assert_str_eq(tare_loss_name(TARE_LOSS_GHM_R), "ghm-r");
  cr_assert_null(tare_loss_name(99));
  cr_assert_null(tare_loss_name(-1));
  cr_assert_eq(tare_loss_kind_from_name("sigmoid_focal"), -1);
  cr_assert_eq(tare_loss_kind_from_name(""), -1);
  cr_assert_eq(tare_loss_kind_from_name(NULL), -1);
  cr_assert_eq(tare_loss_kind_at(-1), -1);
  cr_assert_eq(tare_loss_kind_at(tare_loss_count()), -1);
  cr_assert_eq(tare_version(), TARE_VERSION_NUMBER);
  cr_assert_not_null(strstr(tare_build_description(), "0.1.0"), "%s", tare_build_description());
}
