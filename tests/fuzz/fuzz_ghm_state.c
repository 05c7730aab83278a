/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A GHM state of any bytes, in memory of exactly its size: every call that takes it computes with it as it is or
 * refuses it, and touches nothing beside it. `given` writes nothing into it.
 */
#include <string.h>

#include "calls.h"

enum { ROWS = 6, CLASSES = 5 };

static void take_state(fuzz_input *input, unsigned char *state, size_t bytes) {
  const bool fresh = take_below(input, 4) == 0;
  for (size_t at = 0; at + 8 <= bytes; at += 8) {
    const int64_t whole = take_odd_int(input);
    const double real = take_odd_double(input);
    const bool is_real = at >= 16 + (bytes - 16) / 3;
    memcpy(state + at, is_real ? (const void *)&real : (const void *)&whole, 8);
    if (input->left == 0) memset(state + at, 0, 8);
  }
  if (fresh) memset(state, 0, bytes);
}

static void make_batch(fuzz_input *input, tare_batch *batch, tare_level *level) {
  float *logits = guarded(input, sizeof(float) * ROWS * CLASSES, 4);
  int32_t *labels = guarded(input, sizeof(int32_t) * ROWS, 4);
  for (int i = 0; i < ROWS * CLASSES; i++) logits[i] = (float)take_odd_double(input);
  for (int i = 0; i < ROWS; i++) labels[i] = (int32_t)take_below(input, CLASSES + 2) - 2;
  tare_level_init_rows(level, ROWS, CLASSES);
  level->logits = logits;
  level->labels = labels;
  level->gradient = guarded(input, sizeof(float) * ROWS * CLASSES, 4);
  tare_batch_init(batch);
  batch->levels = level;
  batch->level_count = 1;
  batch->classes = CLASSES;
}

static void call(fuzz_input *input, tare_context *context, tare_loss_spec *loss, const tare_batch *batch,
                 const tare_output *output) {
  unsigned char before[8 * (2 + 3 * 1024)];
  const size_t bytes = (size_t)tare_ghm_state_bytes(loss->ghm.bins);
  const int64_t which = take_below(input, 4);
  memcpy(before, loss->ghm.state, bytes);
  guarded_remember();
  loss->ghm.use_stored_density = which == 3;
  if (which == 0) fuzz_expect_kept(context, tare_ghm_histogram(context, loss, batch, NULL));
  if (which == 1) fuzz_expect_kept(context, tare_ghm_density_update(context, loss, NULL));
  if (which >= 2) fuzz_expect_kept(context, tare_evaluate(context, loss, batch, output, NULL));
  EXPECT(which != 3 || memcmp(before, loss->ghm.state, bytes) == 0, "`given` wrote into the state");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const int32_t bins[] = {1, 2, 10, 30, 33, 64, 1024};
  fuzz_input input = {data, size};
  tare_loss_spec loss;
  tare_batch batch;
  tare_level level;
  tare_output output;
  tare_context *context = fuzz_context(&input);
  tare_loss_spec_init(&loss, TARE_LOSS_GHM_C);
  loss.ghm.bins = bins[take_below(&input, 7)];
  loss.ghm.variant = (int32_t)take_below(&input, 2);
  loss.ghm.momentum = take_below(&input, 2) == 0 ? 0 : 0.75;
  const size_t bytes = (size_t)tare_ghm_state_bytes(loss.ghm.bins);
  loss.ghm.state = guarded(&input, bytes, 8);
  make_batch(&input, &batch, &level);
  tare_output_init(&output);
  output.loss = guarded(&input, 4, 4);
  const int64_t calls = 1 + take_below(&input, 4);
  take_state(&input, loss.ghm.state, bytes);
  for (int64_t i = 0; i < calls; i++) call(&input, context, &loss, &batch, &output);
  guarded_free_all();
  return 0;
}
