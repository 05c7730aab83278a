/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of more than 2^32 elements, on a real GPU. */
#define _GNU_SOURCE
#include "gpu.h"

/* ---- More than 2^32 elements ------------------------------------------------------------------------------------- */

#ifndef TARE_TEST_EMULATED

typedef struct huge {
  tare_loss_spec loss;
  int64_t rows, classes;
  bool channels_first;
  unsigned char label_byte; /* of the plain rows: 0xFF background, 0 class 0 */
  uint16_t *logits;         /* device, bf16; becomes the gradient */
  int32_t *labels;
  double *sum;
  tare_counts *counts;
  uint64_t *state;
} huge;

enum { SPECIAL = 7, PLAIN_BITS = 0xC0C0, CHUNK = 1 << 27, AT_ONCE = 4096 }; /* -6 in bf16 */

static int64_t huge_place(const huge *h, int64_t row, int64_t c) {
  return h->channels_first ? c * h->rows + row : row * h->classes + c;
}

/* Rows at the ends and around the elements 2^31 and 2^32. */
static int64_t special_row(const huge *h, int i) {
  const int64_t rows[SPECIAL] = {0,
                                 (INT64_C(1) << 31) / h->classes,
                                 (INT64_C(1) << 31) / h->classes + 1,
                                 (INT64_C(1) << 32) / h->classes,
                                 (INT64_C(1) << 32) / h->classes + 1,
                                 h->rows - 2,
                                 h->rows - 1};
  return rows[i];
}

static uint16_t special_logit(int i, int64_t c) { return (uint16_t)(0x3F00 + (i * 37 + c * 11) % 256); } /* 0.5..8 */

static tare_status huge_evaluate(const huge *h, tare_context *context) {
  tare_level level;
  if (h->channels_first)
    tare_level_init_nchw(&level, 1, h->classes, 1, h->rows);
  else
    tare_level_init_rows(&level, h->rows, h->classes);
  level.logits = level.gradient = h->logits;
  level.gradient_strides = level.logits_strides;
  level.labels = h->labels;
  tare_batch batch;
  tare_batch_init(&batch);
  batch.levels = &level;
  batch.level_count = 1;
  batch.dtype = TARE_DTYPE_BF16;
  batch.classes = h->classes;
  tare_output output;
  tare_output_init(&output);
  output.loss = h->sum;
  output.loss_dtype = TARE_DTYPE_F64;
  output.counts = h->counts;
  const tare_status status = tare_evaluate(context, &h->loss, &batch, &output, NULL);
  return status == TARE_STATUS_OK ? tare_context_synchronize(context, NULL) : status;
}

static void huge_allocate(huge *h) {
  const size_t elements = (size_t)(h->rows * h->classes);
  MUST(cudaMalloc((void **)&h->logits, elements * sizeof *h->logits));
  MUST(cudaMalloc((void **)&h->labels, (size_t)h->rows * sizeof *h->labels));
  MUST(cudaMalloc((void **)&h->sum, sizeof *h->sum));
  MUST(cudaMalloc((void **)&h->counts, sizeof *h->counts));
  MUST(cudaMalloc((void **)&h->state, tare_ghm_state_bytes(30)));
  MUST(cudaMemset(h->logits, PLAIN_BITS & 0xFF, elements * sizeof *h->logits));
  MUST(cudaMemset(h->labels, h->label_byte, (size_t)h->rows * sizeof *h->labels));
  MUST(cudaMemset(h->state, 0, tare_ghm_state_bytes(30)));
  if (is_ghm(h->loss.kind)) h->loss.ghm.state = h->state;
}

static void huge_release(huge *h) {
  void *const memory[] = {h->logits, h->labels, h->sum, h->counts, h->state};
  for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) MUST(cudaFree(memory[i]));
}

static void put_special(const huge *h, int64_t row, int i) {
  const int32_t label = (int32_t)(i % h->classes);
  MUST(cudaMemcpy(h->labels + row, &label, sizeof label, cudaMemcpyHostToDevice));
  for (int64_t c = 0; c < h->classes; c++) {
    const uint16_t bits = special_logit(i, c);
    MUST(cudaMemcpy(h->logits + huge_place(h, row, c), &bits, sizeof bits, cudaMemcpyHostToDevice));
  }
}

static int distance(uint16_t a, uint16_t b) { /* in steps of bf16, signs apart */
  return (a ^ b) & 0x8000 ? 0x10000 : abs((int)a - (int)b);
}

/* The same rows as a small batch, the last of them plain: the small one is held against the oracle elsewhere. */
static double small_twin(const huge *h, tare_context *context, uint16_t *gradient, double *plain_loss) {
  huge twin = {.loss = h->loss, .rows = 1, .classes = h->classes, .label_byte = h->label_byte};
  huge_allocate(&twin);
  cr_assert_eq(huge_evaluate(&twin, context), TARE_STATUS_OK, "%s", tare_error_text(context));
  MUST(cudaMemcpy(plain_loss, twin.sum, sizeof *plain_loss, cudaMemcpyDeviceToHost));
  huge_release(&twin);
  twin.rows = SPECIAL + 1;
  huge_allocate(&twin);
  double loss;
  for (int i = 0; i < SPECIAL; i++) put_special(&twin, i, i);
  cr_assert_eq(huge_evaluate(&twin, context), TARE_STATUS_OK, "%s", tare_error_text(context));
  MUST(
      cudaMemcpy(gradient, twin.logits, (size_t)(twin.rows * twin.classes) * sizeof *gradient, cudaMemcpyDeviceToHost));
  MUST(cudaMemcpy(&loss, twin.sum, sizeof loss, cudaMemcpyDeviceToHost));
  huge_release(&twin);
  return loss - *plain_loss;
}

static bool is_special(const huge *h, int64_t row) {
  for (int i = 0; i < SPECIAL; i++) {
    if (special_row(h, i) == row) return true;
  }
  return false;
}

/* Whether `count` elements of the fast axis, from (slow, fast) on, are right to the bit. They are compared as a whole:
 * billions of comparisons of elements would take most of the time. */
static bool are_plain(const huge *h, const uint16_t *got, int64_t count, int64_t slow, int64_t fast,
                      const uint16_t *plain) {
  if (!h->channels_first) return memcmp(got, plain + fast, (size_t)count * sizeof *got) == 0;
  return got[0] == plain[slow] && memcmp(got, got + 1, (size_t)(count - 1) * sizeof *got) == 0;
}

/* Special rows are left out: the caller compares each of them. Other rows differ by column only. */
static void expect_plain_elements(const huge *h, const uint16_t *plain) {
  const int64_t elements = h->rows * h->classes, fast_size = h->channels_first ? h->rows : h->classes;
  uint16_t *chunk;
  MUST(cudaMallocHost((void **)&chunk, CHUNK * sizeof *chunk));
  int64_t bad = 0, first_bad = -1, slow = 0, fast = 0;
  for (int64_t from = 0; from < elements; from += CHUNK) {
    const int64_t count = elements - from < CHUNK ? elements - from : CHUNK;
    MUST(cudaMemcpy(chunk, h->logits + from, (size_t)count * sizeof *chunk, cudaMemcpyDeviceToHost));
    for (int64_t i = 0, run; i < count; i += run) {
      run = fast_size - fast < count - i ? fast_size - fast : count - i;
      if (run > AT_ONCE) run = AT_ONCE;
      for (int64_t k = are_plain(h, chunk + i, run, slow, fast, plain) ? run : 0; k < run; k++) {
        const int64_t c = h->channels_first ? slow : fast + k, row = h->channels_first ? fast + k : slow;
        if (distance(chunk[i + k], plain[c]) > 1 && !is_special(h, row) && bad++ == 0) first_bad = from + i + k;
      }
      fast += run;
      if (fast == fast_size) fast = 0, slow++;
    }
  }
  MUST(cudaFreeHost(chunk));
  cr_assert_eq(bad, 0, "%lld plain elements are wrong, the first is %lld", (long long)bad, (long long)first_bad);
}

static void expect_special_elements(const huge *h, const uint16_t *small) {
  for (int s = 0; s < SPECIAL; s++) {
    for (int64_t c = 0; c < h->classes; c++) {
      uint16_t got;
      const int64_t at = huge_place(h, special_row(h, s), c);
      MUST(cudaMemcpy(&got, h->logits + at, sizeof got, cudaMemcpyDeviceToHost));
      const uint16_t want = small[s * h->classes + c];
      cr_assert_leq(distance(got, want), 1, "element %lld: bits %04x, want %04x", (long long)at, got, want);
    }
  }
}

/* GHM weighs by counts that a small batch does not have: the counts are what is checked, and that equal elements have
 * equal gradients. */
static void expect_ghm_counts(const huge *h, uint16_t *plain) {
  int64_t words[32], sum = 0;
  MUST(cudaMemcpy(words, h->state, sizeof words, cudaMemcpyDeviceToHost));
  for (int k = 0; k < 30; k++) sum += words[2 + k];
  cr_assert_eq(words[1], h->rows * h->classes);
  cr_assert_eq(sum, h->rows * h->classes);
  cr_assert_geq(words[2], (h->rows - SPECIAL) * h->classes);
  MUST(cudaMemcpy(plain, h->logits + huge_place(h, 1, 0), sizeof *plain, cudaMemcpyDeviceToHost));
  for (int64_t c = 1; c < h->classes; c++) plain[c] = plain[0];
}

static void check_huge(int32_t kind, int64_t classes, bool channels_first, tare_context *context) {
  huge h = {.rows = (INT64_C(1) << 32) / classes + 1001, .classes = classes, .channels_first = channels_first};
  tare_loss_spec_init(&h.loss, (tare_loss_kind)kind);
  h.label_byte = is_softmax(kind) ? 0 : 0xFF;
  uint16_t *small = malloc((size_t)((SPECIAL + 1) * classes) * sizeof *small), *plain = small + SPECIAL * classes;
  double plain_loss = 0, special_loss = 0, loss;
  if (!is_ghm(kind)) special_loss = small_twin(&h, context, small, &plain_loss);
  huge_allocate(&h);
  for (int i = 0; i < SPECIAL; i++) put_special(&h, special_row(&h, i), i);
  cr_assert_eq(huge_evaluate(&h, context), TARE_STATUS_OK, "%s", tare_error_text(context));
  MUST(cudaMemcpy(&loss, h.sum, sizeof loss, cudaMemcpyDeviceToHost));
  if (is_ghm(kind)) {
    expect_ghm_counts(&h, plain);
  } else {
    const double want = special_loss + (double)(h.rows - SPECIAL) * plain_loss;
    CHECK_NEAR("loss", loss, want, ((tolerance){0, 1e-5}));
    expect_special_elements(&h, small);
  }
  expect_plain_elements(&h, plain);
  huge_release(&h);
  free(small);
}

#endif

static void check_huge_on_a_gpu(int32_t kind, int64_t classes, bool channels_first) {
#ifdef TARE_TEST_EMULATED
  (void)kind, (void)classes, (void)channels_first;
  cr_skip_test("no GPU: more than 2^32 elements take 9 GB and a GPU's speed");
#else
  if (test_small()) cr_skip_test("more than 2^32 elements are not small");
  FOR_EACH_GPU(device) {
    size_t available = 0, total = 0;
    MUST(cudaMemGetInfo(&available, &total));
    if (available >> 30 < 10) cr_skip_test("no GPU with 10 GB free: this one has %zu MB", available >> 20);
    check_huge(kind, classes, channels_first, device->context);
  }
#endif
}

Test(gpu, huge_sigmoid) { check_huge_on_a_gpu(TARE_LOSS_SIGMOID_FOCAL, 80, false); }
Test(gpu, huge_sigmoid_of_odd_rows) { check_huge_on_a_gpu(TARE_LOSS_SIGMOID_CE, 91, false); }
Test(gpu, huge_sigmoid_channels_first) { check_huge_on_a_gpu(TARE_LOSS_SIGMOID_FOCAL, 80, true); }
Test(gpu, huge_softmax) { check_huge_on_a_gpu(TARE_LOSS_SOFTMAX_FOCAL, 81, false); }
Test(gpu, huge_softmax_of_many_classes) { check_huge_on_a_gpu(TARE_LOSS_SOFTMAX_CE, 1203, false); }
Test(gpu, huge_softmax_channels_first) { check_huge_on_a_gpu(TARE_LOSS_SOFTMAX_CE, 81, true); }
Test(gpu, huge_ghm) { check_huge_on_a_gpu(TARE_LOSS_GHM_C, 80, false); }
