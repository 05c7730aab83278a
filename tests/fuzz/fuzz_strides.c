/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Levels and strides: arrays that lie anywhere in one piece of memory, over each other too. What overlaps where it must
 * not is refused; what is computed is what contiguous arrays give, and every other byte stays as it was.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"

enum { LEVELS = 2, MOST = 4096, MOST_PLACES = 20000, HEAP = 6000 };
enum { LOGITS, GRADIENT, LABELS, ROW_WEIGHTS, ROW_LOSS, ELEMENT_LOSS, ARRAYS };

static const bool is_output[ARRAYS] = {[GRADIENT] = true, [ROW_LOSS] = true, [ELEMENT_LOSS] = true};
static const bool has_classes[ARRAYS] = {[LOGITS] = true, [GRADIENT] = true, [ELEMENT_LOSS] = true};

/* Every element of every array: where it lies, what it belongs to, its index in row order. All are 4 bytes wide. */
typedef struct place {
  uintptr_t at;
  int64_t index;
  int level, array;
} place;

static place places[MOST_PLACES];
static int64_t place_count;

typedef struct view {
  void *memory;
  tare_strides strides;
} view;

typedef struct layout {
  int64_t images, classes, rows;
  int64_t lengths[LEVELS][5];
  view views[LEVELS][ARRAYS];
  tare_level levels[LEVELS];
  int32_t level_count;
  unsigned char *heap, *before;
} layout;

/* ---- Making one -------------------------------------------------------------------------------------------------- */

static tare_strides take_strides(fuzz_input *input, const int64_t lengths[5], bool with_classes) {
  int64_t s[5] = {0}, span = 1;
  for (int axis = 4; axis >= 0; axis--) {
    const int64_t choice = take_below(input, 20), length = axis == 4 && !with_classes ? 1 : lengths[axis];
    s[axis] = span;
    if (choice == 0) s[axis] = (int8_t)take_byte(input) % 30;
    if (choice == 1) s[axis] = -span;
    if (choice == 2) s[axis] += take_below(input, 4);
    if (choice == 3 && length <= 1) s[axis] = take_odd_int(input);
    span *= length > 0 ? length : 1;
  }
  return (tare_strides){s[0], s[1], s[2], s[3], s[4]};
}

/* In the heap where it fits, if the array before does not come to lie where this one does, by chance or by intent. */
static void *take_place(fuzz_input *input, layout *l, const int64_t lengths[5], const tare_strides *strides,
                        size_t *next) {
  int64_t below;
  const int64_t span = fuzz_span(lengths, strides, &below);
  const int64_t choice = take_below(input, 12);
  if (span < 0 || span * 4 > HEAP) return NULL;
  size_t from = *next;
  if (choice == 0) from = (size_t)take_byte(input) * 4;
  if (choice == 1 && from >= 4) from -= 4;
  if (from + (size_t)span * 4 > HEAP) return NULL;
  *next = from + (size_t)span * 4;
  return l->heap + from + (size_t)below * 4;
}

static void take_level(fuzz_input *input, layout *l, int32_t index, size_t *next) {
  tare_level *level = &l->levels[index];
  int64_t *lengths = l->lengths[index];
  *level = (tare_level){
      .height = take_below(input, 4), .width = take_below(input, 5), .anchors = take_below(input, 4), .loss_weight = 1};
  const int64_t sizes[5] = {l->images, level->height, level->width, level->anchors, l->classes};
  memcpy(lengths, sizes, sizeof sizes);
  for (int a = 0; a < ARRAYS; a++) {
    view *v = &l->views[index][a];
    const bool wanted = a == LOGITS || a == LABELS || take_below(input, 3) != 0;
    int64_t own[5];
    memcpy(own, lengths, sizeof own);
    if (!has_classes[a]) own[4] = 0;
    v->strides = take_strides(input, own, has_classes[a]);
    if (wanted) v->memory = take_place(input, l, own, &v->strides, next);
    if (a == GRADIENT && take_below(input, 6) == 0) *v = l->views[index][LOGITS];
  }
  const view *v = l->views[index];
  level->logits = v[LOGITS].memory, level->logits_strides = v[LOGITS].strides;
  level->gradient = v[GRADIENT].memory, level->gradient_strides = v[GRADIENT].strides;
  level->labels = v[LABELS].memory, level->labels_strides = v[LABELS].strides;
  level->row_weights = v[ROW_WEIGHTS].memory, level->row_weights_strides = v[ROW_WEIGHTS].strides;
  level->row_loss = v[ROW_LOSS].memory, level->row_loss_strides = v[ROW_LOSS].strides;
  level->element_loss = v[ELEMENT_LOSS].memory, level->element_loss_strides = v[ELEMENT_LOSS].strides;
}

/* ---- Where everything lies --------------------------------------------------------------------------------------- */

static void add_places(const layout *l, int level, int array, int64_t *first) {
  const view *v = &l->views[level][array];
  const int64_t *n = l->lengths[level];
  const int64_t classes = has_classes[array] ? n[4] : 1;
  const int64_t s[5] = {v->strides.image, v->strides.y, v->strides.x, v->strides.anchor, v->strides.cls};
  const int64_t count = n[0] * n[1] * n[2] * n[3] * classes;
  for (int64_t i = 0; i < count && v->memory != NULL; i++) {
    const int64_t at[5] = {i / (n[1] * n[2] * n[3] * classes) % n[0], i / (n[2] * n[3] * classes) % n[1],
                           i / (n[3] * classes) % n[2], i / classes % n[3], i % classes};
    int64_t place_of = 0;
    for (int axis = 0; axis < 5; axis++) place_of += at[axis] > 0 ? at[axis] * s[axis] : 0;
    EXPECT(place_count < MOST_PLACES, "%lld", (long long)place_count);
    places[place_count++] = (place){(uintptr_t)v->memory + (uintptr_t)(place_of * 4), *first + i, level, array};
  }
  *first += count;
}

static int by_address(const void *a, const void *b) {
  const place *x = a, *y = b;
  return x->at < y->at ? -1 : x->at > y->at;
}

static void list_places(const layout *l) {
  int64_t first[ARRAYS] = {0};
  place_count = 0;
  for (int level = 0; level < l->level_count; level++) {
    for (int a = 0; a < ARRAYS; a++) add_places(l, level, a, &first[a]);
  }
  qsort(places, (size_t)place_count, sizeof *places, by_address);
}

/* An output's place that is another's too, but for a gradient at its own logits' place. */
static bool clash(const place *a, const place *b) {
  if (!is_output[a->array] && !is_output[b->array]) return false;
  const bool in_place = a->array + b->array == LOGITS + GRADIENT && a->level == b->level && a->index == b->index;
  return !in_place;
}

static bool any_clash(void) {
  for (int64_t i = 0; i < place_count; i++) {
    for (int64_t k = i + 1; k < place_count && places[k].at < places[i].at + 4; k++) {
      if (clash(&places[i], &places[k])) return true;
    }
  }
  return false;
}

/* ---- Computing --------------------------------------------------------------------------------------------------- */

static float logits[MOST], gradient[MOST], row_loss[MOST], element_loss[MOST], row_weights[MOST];
static int32_t labels[MOST];

static void fill_heap(const layout *l) {
  for (int i = 0; i < HEAP / 4; i++) {
    const int32_t label = i * 7 % (int)(l->classes + 2) - 2;
    const float logit = (float)((i * 37) % 101 - 60) / 8;
    memcpy(l->heap + 4 * i, i % 2 == 0 ? (const void *)&label : (const void *)&logit, 4);
  }
  for (int64_t i = 0; i < place_count; i++) { /* numbers of the right kind where an input lies; the last one stays */
    const place *p = &places[i];
    const int64_t n = (int64_t)(p->at % 8191);
    const int32_t label = (int32_t)(n % (l->classes + 2)) - 2;
    const float logit = (float)(n * 37 % 101 - 60) / 8, weight = (float)(n % 5) / 2;
    if (p->array == LABELS) memcpy((void *)p->at, &label, 4);
    if (p->array == LOGITS) memcpy((void *)p->at, &logit, 4);
    if (p->array == ROW_WEIGHTS) memcpy((void *)p->at, &weight, 4);
  }
}

static void gather(const layout *l) {
  for (int64_t i = 0; i < MOST; i++) row_weights[i] = 1;
  for (int64_t i = 0; i < place_count; i++) {
    const place *p = &places[i];
    if (p->array == LABELS) memcpy(&labels[p->index], (void *)p->at, 4);
    if (p->array == LOGITS) memcpy(&logits[p->index], (void *)p->at, 4);
    if (p->array == ROW_WEIGHTS) memcpy(&row_weights[p->index], (void *)p->at, 4);
  }
  (void)l;
}

static tare_status evaluate(tare_context *context, const layout *l, const tare_level *levels, int32_t count,
                            int64_t images, double *loss) {
  tare_loss_spec kind;
  tare_batch batch;
  tare_output output;
  tare_loss_spec_init(&kind, TARE_LOSS_SIGMOID_FOCAL);
  tare_batch_init(&batch);
  tare_output_init(&output);
  batch.levels = levels;
  batch.level_count = count;
  batch.images = images;
  batch.classes = l->classes;
  output.loss = loss;
  output.loss_dtype = TARE_DTYPE_F64;
  return tare_evaluate(context, &kind, &batch, &output, NULL);
}

static void evaluate_contiguous(tare_context *context, const layout *l, double *loss) {
  tare_level level;
  tare_level_init_rows(&level, l->rows, l->classes);
  level.logits = logits;
  level.labels = labels;
  level.row_weights = row_weights;
  level.gradient = gradient;
  level.row_loss = row_loss;
  level.element_loss = element_loss;
  const tare_status status = evaluate(context, l, &level, 1, 1, loss);
  EXPECT(status == TARE_STATUS_OK, "%s", tare_error_text(context));
}

static bool is_near(float a, float b) {
  return a == b || (isnan(a) && isnan(b)) || fabsf(a - b) <= 2e-6f * fabsf(b) + 1e-34f;
}

/* Outputs hold what contiguous arrays gave; what is no output's place is as it was. */
static void compare(const layout *l, const unsigned char *before) {
  static const float *const want[ARRAYS] = {
      [GRADIENT] = gradient, [ROW_LOSS] = row_loss, [ELEMENT_LOSS] = element_loss};
  for (int64_t i = 0; i < place_count; i++) {
    const place *p = &places[i];
    float got;
    if (!is_output[p->array]) continue;
    memcpy(&got, (void *)p->at, 4);
    EXPECT(is_near(got, want[p->array][p->index]), "array %d [%lld]: %g, contiguous %g", p->array, (long long)p->index,
           (double)got, (double)want[p->array][p->index]);
    memcpy((void *)p->at, before + (p->at - (uintptr_t)l->heap), 4);
  }
  EXPECT(memcmp(l->heap, before, HEAP) == 0, "a byte that is no output's was written");
}

static void check(tare_context *context, layout *l) {
  static unsigned char before[HEAP];
  double loss = -1, want = -2;
  list_places(l);
  fill_heap(l);
  memcpy(before, l->heap, HEAP);
  guarded_remember();
  const tare_status status = evaluate(context, l, l->levels, l->level_count, l->images, &loss);
  fuzz_expect_kept(context, status);
  if (status != TARE_STATUS_OK) {
    EXPECT(loss == -1, "a refused call wrote the loss");
    return;
  }
  EXPECT(!any_clash(), "an output lies where something else does, and that was computed");
  unsigned char after[HEAP];
  memcpy(after, l->heap, HEAP);
  memcpy(l->heap, before, HEAP);
  gather(l);
  evaluate_contiguous(context, l, &want);
  memcpy(l->heap, after, HEAP);
  EXPECT(loss == want || (isnan(loss) && isnan(want)) || fabs(loss - want) <= 1e-6 * fabs(want),
         "loss %.17g, contiguous %.17g", loss, want);
  compare(l, before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_input input = {data, size};
  static layout l;
  memset(&l, 0, sizeof l);
  tare_context *context = fuzz_context(&input);
  l.images = take_below(&input, 3);
  l.classes = 1 + take_below(&input, 7);
  l.level_count = (int32_t)(1 + take_below(&input, LEVELS));
  l.heap = guarded(&input, HEAP, 4);
  size_t next = 0;
  for (int32_t i = 0; i < l.level_count; i++) {
    take_level(&input, &l, i, &next);
    l.rows += l.images * l.levels[i].height * l.levels[i].width * l.levels[i].anchors;
  }
  if (l.rows * l.classes <= MOST) check(context, &l);
  guarded_free_all();
  return 0;
}
