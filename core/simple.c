/* SPDX-License-Identifier: Apache-2.0 */
/* The simple calls: one contiguous array, filled into the structs of tare_evaluate. */
#include "backend.h"

typedef struct simple_batch {
  int64_t rows, classes;
  tare_dtype dtype;
  const void *logits;
  const int32_t *labels;
  tare_normalizer normalizer;
  float *loss;
  void *gradient;
  tare_stream stream;
} simple_batch;

static tare_status evaluate(tare_context *context, const tare_loss_spec *loss, const simple_batch *simple) {
  if (!context) return tare_fail(tare_thread_error(), TARE_STATUS_INVALID_ARGUMENT, "context is NULL");
  if (simple->rows < 0)
    return tare_fail(&context->error, TARE_STATUS_INVALID_ARGUMENT, "rows is %lld; it must be >= 0",
                     (long long)simple->rows);
  if (simple->normalizer == TARE_NORMALIZER_VALUE)
    return tare_fail(&context->error, TARE_STATUS_INVALID_ARGUMENT,
                     "normalizer is TARE_NORMALIZER_VALUE, and this function takes no value; call tare_evaluate");
  tare_level level;
  tare_level_init_rows(&level, simple->rows, simple->classes);
  level.logits = simple->logits;
  level.labels = simple->labels;
  level.gradient = simple->gradient;
  tare_batch batch;
  tare_batch_init(&batch);
  batch.levels = &level;
  batch.level_count = 1;
  batch.classes = simple->classes;
  batch.dtype = (int32_t)simple->dtype;
  tare_output output;
  tare_output_init(&output);
  output.loss = simple->loss;
  output.normalizer = (int32_t)simple->normalizer;
  return tare_evaluate(context, loss, &batch, &output, simple->stream);
}

tare_status tare_sigmoid_ce(tare_context *context, int64_t rows, int64_t classes, tare_dtype dtype, const void *logits,
                            const int32_t *labels, double alpha, tare_normalizer normalizer, float *loss,
                            void *gradient, tare_stream stream) {
  tare_loss_spec which;
  tare_loss_spec_init(&which, TARE_LOSS_SIGMOID_CE);
  which.ce.alpha = alpha;
  return evaluate(context, &which,
                  &(simple_batch){rows, classes, dtype, logits, labels, normalizer, loss, gradient, stream});
}

tare_status tare_sigmoid_focal(tare_context *context, int64_t rows, int64_t classes, tare_dtype dtype,
                               const void *logits, const int32_t *labels, double gamma, double alpha,
                               tare_normalizer normalizer, float *loss, void *gradient, tare_stream stream) {
  tare_loss_spec which;
  tare_loss_spec_init(&which, TARE_LOSS_SIGMOID_FOCAL);
  which.focal.gamma = gamma;
  which.focal.alpha = alpha;
  return evaluate(context, &which,
                  &(simple_batch){rows, classes, dtype, logits, labels, normalizer, loss, gradient, stream});
}

tare_status tare_softmax_ce(tare_context *context, int64_t rows, int64_t classes, tare_dtype dtype, const void *logits,
                            const int32_t *labels, tare_normalizer normalizer, float *loss, void *gradient,
                            tare_stream stream) {
  tare_loss_spec which;
  tare_loss_spec_init(&which, TARE_LOSS_SOFTMAX_CE);
  return evaluate(context, &which,
                  &(simple_batch){rows, classes, dtype, logits, labels, normalizer, loss, gradient, stream});
}

tare_status tare_softmax_focal(tare_context *context, int64_t rows, int64_t classes, tare_dtype dtype,
                               const void *logits, const int32_t *labels, double gamma, double alpha,
                               tare_normalizer normalizer, float *loss, void *gradient, tare_stream stream) {
  tare_loss_spec which;
  tare_loss_spec_init(&which, TARE_LOSS_SOFTMAX_FOCAL);
  which.focal.gamma = gamma;
  which.focal.alpha = alpha;
  return evaluate(context, &which,
                  &(simple_batch){rows, classes, dtype, logits, labels, normalizer, loss, gradient, stream});
}

tare_status tare_ghm_c(tare_context *context, int64_t rows, int64_t classes, tare_dtype dtype, const void *logits,
                       const int32_t *labels, int32_t bins, float *loss, void *gradient, tare_stream stream) {
  tare_loss_spec which;
  tare_loss_spec_init(&which, TARE_LOSS_GHM_C);
  which.ghm.bins = bins;
  return evaluate(context, &which,
                  &(simple_batch){rows, classes, dtype, logits, labels, TARE_NORMALIZER_SUM, loss, gradient, stream});
}
