/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays of `real` in which a thread works: blocks of the sigmoid family, rows of the softmax family. */

typedef struct real_scratch {
  TARE_ALIGNED real x[TARE_BLOCK], weight[TARE_BLOCK], base_weight[TARE_BLOCK], target[TARE_BLOCK];
  TARE_ALIGNED real loss[TARE_BLOCK], derivative[TARE_BLOCK], dense_weight[TARE_BLOCK];
  TARE_ALIGNED real picked_x[TARE_BLOCK], picked_weight[TARE_BLOCK], picked_plain[TARE_BLOCK];
  TARE_ALIGNED real picked_target[TARE_BLOCK], picked_loss[TARE_BLOCK], picked_derivative[TARE_BLOCK];
  TARE_ALIGNED real row[TARE_ROW_BUFFER];
  TARE_ALIGNED real maximum[TARE_TILE_ROWS], label_x[TARE_TILE_ROWS];
  TARE_ALIGNED real row_weight[TARE_TILE_ROWS], class_weight[TARE_BLOCK];
  TARE_ALIGNED real score[TARE_TILE_ROWS]; /* of rows with a class, in [0,1]; where there are scores */
  TARE_ALIGNED real outgoing[TARE_BLOCK];  /* a gradient on its way to memory */
  TARE_ALIGNED real at_0[TARE_BLOCK], at_1[TARE_BLOCK], of_ones[TARE_BLOCK];
  TARE_ALIGNED real gamma[TARE_BLOCK], picked_gamma[TARE_BLOCK]; /* where classes have their own */
  TARE_ALIGNED real of_zeros[TARE_BLOCK];
  real of_line[TARE_BLOCK]; /* factors that the first lines of weight were made with */
  int32_t spread_lines, spread_length;
  int32_t folds_mask; /* the tile's class mask is a factor of class_weight */
  int64_t spread_class;
} real_scratch;

_Static_assert(sizeof(real_scratch) <= TARE_REAL_SCRATCH_BYTES, "raise TARE_REAL_SCRATCH_BYTES");

TARE_INLINE real_scratch *real_scratch_of(tare_scratch *scratch) { return (void *)scratch->of_real; }
