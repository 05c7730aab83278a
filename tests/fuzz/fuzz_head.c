/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fused head of any sizes, strides and workspace, every array in exactly its bytes: it computes, the same twice, or
 * refuses; too little workspace is refused; places between rows stay as they were.
 */
#include <string.h>

#include "calls.h"

static size_t bytes_of(int32_t dtype) { return dtype == TARE_DTYPE_F32 ? 4 : 2; }

/* Never one that is allowed and reaches far: the arrays are small. */
static int64_t take_bad(fuzz_input *input) {
  const int64_t value = take_odd_int(input);
  return value > 0 && value <= INT32_MAX ? -value : value;
}

static int64_t take_stride(fuzz_input *input, int64_t dimensions) {
  const int64_t choice = take_below(input, 20);
  if (choice == 0) return take_bad(input);
  return choice < 8 ? dimensions + take_below(input, 4) : dimensions;
}

/* Small numbers of the type, so that sums stay finite. */
static void *take_numbers(fuzz_input *input, int32_t dtype, int64_t count) {
  unsigned char *at = guarded(input, (size_t)count * bytes_of(dtype), bytes_of(dtype));
  for (int64_t i = 0; i < count; i++) {
    const float value = (float)((i * 29 + take_byte(input)) % 33 - 16) / 8;
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint16_t half =
        (uint16_t)(dtype == TARE_DTYPE_BF16 ? bits >> 16 : (bits >> 31) << 15 | (0x3400 & (bits >> 13)));
    memcpy(at + (size_t)i * bytes_of(dtype), dtype == TARE_DTYPE_F32 ? (const void *)&value : (const void *)&half,
           bytes_of(dtype));
  }
  return at;
}

/* Elements from the first row's first to the last row's last; 0 where a stride is no good. */
static int64_t span_of(int64_t rows, int64_t dimensions, int64_t stride) {
  if (rows == 0) return 1;
  return stride < dimensions || stride > 64 ? 0 : (rows - 1) * stride + dimensions;
}

static void take_linear(fuzz_input *input, int64_t rows, int64_t classes, tare_linear *linear) {
  const int64_t d = 1 + take_below(input, 9);
  tare_linear_init(linear, take_below(input, 32) == 0 ? take_bad(input) : d);
  linear->dtype = (int32_t)take_below(input, 3);
  linear->accumulate = (int32_t)take_below(input, 2);
  linear->features_stride = take_stride(input, d);
  linear->features_gradient_stride = take_stride(input, d);
  const int64_t span = span_of(rows, d, linear->features_stride);
  const int64_t gradient_span = span_of(rows, d, linear->features_gradient_stride);
  linear->features = take_numbers(input, linear->dtype, span > 0 ? span : 1);
  linear->weights = take_numbers(input, linear->dtype, classes * d);
  if (take_below(input, 2) == 0) linear->bias = take_numbers(input, linear->dtype, classes);
  const int64_t choice = take_below(input, 4);
  if (choice == 0) linear->features_gradient = (void *)(uintptr_t)linear->features;
  if (choice > 1) linear->features_gradient = take_numbers(input, linear->dtype, gradient_span > 0 ? gradient_span : 1);
  if (take_below(input, 3) != 0) linear->weights_gradient = take_numbers(input, TARE_DTYPE_F32, classes * d);
  if (take_below(input, 3) != 0) linear->bias_gradient = take_numbers(input, TARE_DTYPE_F32, classes);
}

typedef struct call {
  tare_loss_spec loss;
  tare_batch batch;
  tare_level level;
  tare_output output;
  tare_linear linear;
} call;

static void take_call(fuzz_input *input, call *c) {
  const int64_t rows = take_below(input, 3) == 0 ? take_below(input, 200) : take_below(input, 12);
  const int64_t classes = 1 + take_below(input, take_below(input, 4) == 0 ? 80 : 7);
  tare_loss_spec_init(&c->loss, (tare_loss_kind)tare_loss_kind_at((int32_t)take_below(input, tare_loss_count())));
  tare_batch_init(&c->batch);
  tare_output_init(&c->output);
  tare_level_init_rows(&c->level, rows, classes);
  c->batch.level_count = 1;
  c->batch.classes = classes;
  c->batch.levels = &c->level;
  int32_t *labels = guarded(input, (size_t)rows * 4, 4);
  for (int64_t i = 0; i < rows; i++) labels[i] = (int32_t)((i * 7 + take_byte(input)) % (classes + 2) - 2);
  c->level.labels = labels;
  if (take_below(input, 3) == 0) c->level.row_loss = guarded(input, (size_t)rows * 4, 4);
  if (c->loss.kind == TARE_LOSS_GHM_R) c->level.targets = take_numbers(input, TARE_DTYPE_F32, rows * classes);
  c->output.loss = guarded(input, 4, 4);
  if (take_below(input, 3) == 0) c->output.counts = guarded(input, sizeof(tare_counts), 8);
  take_linear(input, rows, classes, &c->linear);
  if (c->loss.kind != TARE_LOSS_GHM_R && take_below(input, 3) == 0)
    c->output.class_sums = guarded(input, (size_t)classes * sizeof(tare_class_sums), 8);
}

static void lend(fuzz_input *input, tare_context *context, uint64_t least, uint64_t ample, uint64_t *bytes) {
  const int64_t choice = take_below(input, 6);
  *bytes = choice == 0 ? ample : choice == 1 && least > 0 ? least - 1 : least + take_word(input) % (ample - least + 1);
  if (*bytes > 0) tare_context_set_workspace(context, guarded(input, (size_t)*bytes, 16), *bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_input input = {data, size};
  call c;
  memset(&c, 0, sizeof c);
  tare_context *context = fuzz_context(&input);
  take_call(&input, &c);
  uint64_t least = 0, ample = 0, bytes = 0;
  guarded_remember();
  const tare_status asked =
      tare_linear_workspace_size(context, &c.loss, &c.batch, &c.linear, &c.output, &least, &ample);
  fuzz_expect_kept(context, asked);
  EXPECT(asked != TARE_STATUS_OK || least <= ample, "least %llu, ample %llu", (unsigned long long)least,
         (unsigned long long)ample);
  if (asked == TARE_STATUS_OK && ample < 1 << 24) {
    lend(&input, context, least, ample, &bytes);
    guarded_remember();
    const tare_status status = tare_linear_evaluate(context, &c.loss, &c.batch, &c.linear, &c.output, NULL);
    fuzz_count(status == TARE_STATUS_OK);
    EXPECT(bytes >= least || status == TARE_STATUS_WORKSPACE_TOO_SMALL, "%llu of %llu bytes: %s",
           (unsigned long long)bytes, (unsigned long long)least, tare_status_name(status));
    EXPECT(bytes < least || status == TARE_STATUS_OK || status == TARE_STATUS_NO_BLAS, "%s: %s",
           tare_status_name(status), tare_error_text(context));
    if (status == TARE_STATUS_WORKSPACE_TOO_SMALL) fuzz_expect_kept(context, status);
  }
  tare_context_set_workspace(context, NULL, 0);
  guarded_free_all();
  return 0;
}
