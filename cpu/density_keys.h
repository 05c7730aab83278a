/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient norms of a block's elements: counted, collected, or turned into weights. */

/** Finds the elements whose target lies between 0 and 1, and their gradient norms; returns how many. */
static int32_t find_soft_norms(const stretch *on, const real *target, tare_scratch *scratch) {
  tare_soft_norms *soft = &scratch->soft_norms;
  int32_t n = 0;
  for (int32_t i = 0; i < on->n; i++) {
    if (target[i] == 0 || target[i] == 1) continue;
    soft->x[n] = (double)on->x[i];
    soft->target[n] = (double)target[i];
    soft->at[n++] = i;
  }
  if (n) scratch->in_double->find_soft_norms(n, soft->x, soft->target, soft->norm);
  return n;
}

/** The signed logit of each element in double; of a target between 0 and 1 the one whose g is the same. */
static void double_keys(const tare_job *job, const stretch *on, const real *target, tare_scratch *scratch) {
  const tare_soft_norms *soft = &scratch->soft_norms;
  for (int32_t i = 0; i < on->n; i++) {
    const double x = (double)on->x[i];
    scratch->key[i] = job->problem->soft && target[i] == 1 ? -x : x;
  }
  const int32_t n = job->problem->soft ? find_soft_norms(on, target, scratch) : 0;
  for (int32_t k = 0; k < n; k++) scratch->key[soft->at[k]] = log(soft->norm[k] / (1 - soft->norm[k]));
}

/** The bin of a norm in [0,1], or NaN. The edges are so near to k/M that floor(norm*M) is at most one bin off. */
static int32_t bin_of_norm(const tare_bins *bins, double norm) {
  const double scaled = norm * bins->count, *lower = bins->norm_f64;
  const int32_t found = scaled >= 0 ? (int32_t)scaled : 0, last = bins->count - 1, k = found > last ? last : found;
  return k + (norm >= lower[k + 1]) - (norm < lower[k]);
}

/** Bins of a chunk that are one off where a guess was too near to an edge: by the signed logit, and of targets between
 *  0 and 1 by their norm. */
static __attribute__((noinline)) void correct_soft_bins(const tare_bins *bins, const stretch *on, const real *target,
                                                        tare_scratch *scratch, int32_t *bin) {
  const tare_soft_norms *soft = &scratch->soft_norms;
  const real *lower = lower_of(bins);
  for (int32_t i = 0; i < on->n; i++) {
    const real key = target[i] == 1 ? -on->x[i] : on->x[i];
    bin[i] += (key >= lower[bin[i] + 1]) - (key < lower[bin[i]]);
  }
  const int32_t n = find_soft_norms(on, target, scratch);
  for (int32_t k = 0; k < n; k++) bin[soft->at[k]] = bin_of_norm(bins, soft->norm[k]);
}

#ifdef HAS_VECTORS

/** The bins of whole units. */
static void soft_bins_of(const tare_bins *bins, const stretch *on, const real *target, tare_scratch *scratch,
                         int32_t *bin) {
  doubts doubtful;
  guess_soft_bins_of(bins, on->x, target, on->n, bin, &doubtful);
  for (int32_t d = 0; d < doubtful.n; d++) {
    const int32_t at = doubtful.at[d];
    const stretch turn = {.n = AT_ONCE, .x = on->x + at};
    correct_soft_bins(bins, &turn, target + at, scratch, bin + at);
  }
}

#else

/** The same, of whole chunks. */
static void soft_bins_of(const tare_bins *bins, const stretch *on, const real *target, tare_scratch *scratch,
                         int32_t *bin) {
  for (int32_t start = 0; start < on->n; start += CHUNK) {
    const stretch part = {.n = CHUNK, .x = on->x + start};
    if (guess_norms(1, bins, part.x, target + start, bin + start))
      correct_soft_bins(bins, &part, target + start, scratch, bin + start);
  }
}

#endif

/** The bins of elements with dense targets. They are guessed as those of keys are. */
static void find_soft_bins(const tare_bins *bins, const stretch *on, const real *target, tare_scratch *scratch) {
  const int32_t left = on->n % CHUNK, whole = on->n - left;
  const stretch chunks = {.n = whole, .x = on->x}, rest = {.n = CHUNK, .x = on->x + whole};
  soft_bins_of(bins, &chunks, target, scratch, scratch->bin);
  if (!left) return;
  real padded[CHUNK] = {0}; /* what follows the last target may be any number, and give any bin */
  memcpy(padded, target + whole, (size_t)left * sizeof *target);
  soft_bins_of(bins, &rest, padded, scratch, scratch->bin + whole);
}

/** Weight x 1/GD of each element, by bins. */
static void weigh_by_bin(const tare_job *job, const stretch *on, const real *target, tare_scratch *scratch, real *out) {
  const tare_bins *bins = job->bins;
#ifndef HAS_VECTORS
  if (!job->problem->soft) {
    weigh_by_bins(bins, on->x, on->weight, on->n, scratch->bin, out);
    return;
  }
#endif
  find_soft_bins(bins, on, target, scratch);
  for (int32_t i = 0; i < on->n; i++) out[i] = weight_by(on->weight[i], weight_of(bins)[scratch->bin[i]]);
}

static void count_keys(const tare_job *job, const stretch *on, const real *target, tare_scratch *scratch) {
  if (!job->problem->soft) {
    count_bins(job->bins, on->x, on->weight, on->n, scratch);
    return;
  }
  find_soft_bins(job->bins, on, target, scratch);
  for (int32_t i = 0; i < on->n; i++) scratch->histogram[i & 3][scratch->bin[i]] += on->weight[i] != 0;
}

/** The same of labels' elements with scores, which have been counted in the first bin. */
static void count_scored_keys(const tare_job *job, const stretch *on, const real *target, tare_scratch *scratch) {
  find_soft_bins(job->bins, on, target, scratch);
  for (int32_t i = 0; i < on->n; i++) {
    scratch->histogram[0][0] -= on->weight[i] != 0;
    scratch->histogram[0][scratch->bin[i]] += on->weight[i] != 0;
  }
}

/* The exact density: see cpu/exact.c. */

/** The place of a block's first element. */
static int64_t place_of_block(const tare_tile *tile, int64_t classes, const block *b) {
  return tile->place + (b->by_class ? b->first_class * tile->rows : b->first_row * classes + b->first_class);
}

#if TARE_REAL_BITS == 32

/** The signed logit's bits in an order that unsigned integers have, and its place. A NaN counts as -inf. */
TARE_INLINE uint64_t word_of(float u, float weight, uint32_t place) {
  const uint32_t bits = (uint32_t)bits_of(u), ordered = bits ^ (bits >> 31 ? UINT32_MAX : UINT32_C(1) << 31);
  const uint64_t key = u == u ? ordered : UINT32_C(0x007fffff);
  return weight != 0 ? key << 32 | place : TARE_NO_WORD;
}

static void collect_words(const stretch *on, int64_t place, uint64_t *restrict word) {
  const float *restrict x = on->x, *restrict weight = on->weight;
  const uint32_t first = (uint32_t)place;
#pragma omp simd
  for (int32_t i = 0; i < on->n; i++) word[i] = word_of(x[i], weight[i], first + (uint32_t)i); /* not with SSE2 */
}

/** Of the labels' elements of a block, instead. */
static void collect_picked_words(const stretch *on, const int32_t *picked_at, int64_t place, uint64_t *word) {
  for (int32_t k = 0; k < on->n; k++)
    word[picked_at[k]] = word_of(on->x[k], on->weight[k], (uint32_t)place + (uint32_t)picked_at[k]);
}

#endif

/** Keys in double of a block's elements, then of its labels' in the scratch. */
static void collect_doubles(const tare_job *job, const stretch *on, const int32_t *at, tare_scratch *scratch,
                            uint64_t *key) {
  double_keys(job, on, real_scratch_of(scratch)->target, scratch);
  for (int32_t i = 0; i < on->n; i++)
    key[at ? at[i] : i] =
        on->weight[i] != 0 ? tare_ordered_bits(tare_key_or_least(scratch->key[i], -(double)INFINITY)) : TARE_NO_WORD;
}

static void collect_keys(const tare_job *job, const tare_tile *tile, const block *b, const stretch *on,
                         const stretch *positives, tare_scratch *scratch) {
  const int64_t place = place_of_block(tile, job->problem->batch.classes, b);
#if TARE_REAL_BITS == 32
  if (job->collects_words) {
    collect_words(on, place, job->key + place);
    collect_picked_words(positives, scratch->picked_at, place, job->key + place);
    return;
  }
#endif
  collect_doubles(job, on, NULL, scratch, job->key + place);
  collect_doubles(job, positives, scratch->picked_at, scratch, job->key + place);
}

/** Weight x 1/GD of each element of a block and of its labels'. */
static void weigh_by_place(const tare_job *job, int64_t place, stretch *on, const stretch *positives,
                           const int32_t *picked_at, real_scratch *s) {
  const real *restrict inverse_density = (const real *)job->inverse_density + place;
  const real *restrict weight = on->weight;
  real *restrict out = s->dense_weight;
  for (int32_t i = 0; i < on->n; i++) out[i] = weight_by(weight[i], inverse_density[i]);
  for (int32_t i = on->n; i < whole_chunks(on->n); i++) out[i] = 0;
  for (int32_t k = 0; k < positives->n; k++)
    positives->weight[k] = weight_by(positives->weight[k], inverse_density[picked_at[k]]);
  on->weight = out;
}
