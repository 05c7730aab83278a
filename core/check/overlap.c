/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether two strided arrays share a byte. The difference of two addresses is a sum of coefficients times strides. The
 * arrays overlap if that sum can fall within an element. The search starts at the largest stride. It keeps only
 * coefficients from which the smaller strides can still reach the target. Arrays have nested strides, so these are one
 * or two an axis.
 */
#include "overlap.h"

enum { TERMS = 2 * TARE_FOOTPRINT_AXES, BUDGET = 4096 };

/** The difference of two addresses takes 65 bits, and a sum of strides more. */
__extension__ typedef __int128 wide;

/** stride x c with c in [low, high]; stride > 0. */
typedef struct term {
  wide stride, low, high;
} term;

typedef struct search {
  int count, steps;
  term terms[TERMS];
  wide least[TERMS + 1], most[TERMS + 1]; /* the range of the sum of the terms from here on */
} search;

static void add_term(search *s, wide stride, int64_t length, int sign) {
  if (length == 1 || stride == 0) return;
  const wide reach = length - 1;
  const int up = (stride > 0) == (sign > 0);
  const term t = {stride < 0 ? -stride : stride, up ? 0 : -reach, up ? reach : 0};
  int at = 0;
  while (at < s->count && s->terms[at].stride > t.stride) at++;
  if (at < s->count && s->terms[at].stride == t.stride) {
    s->terms[at].low += t.low;
    s->terms[at].high += t.high;
    return;
  }
  for (int i = s->count++; i > at; i--) s->terms[i] = s->terms[i - 1];
  s->terms[at] = t;
}

static wide floor_divide(wide a, wide b) { return a / b - (a % b < 0); }

/** Whether the sum of the terms from `at` on can be in [low, high]. */
static int can_reach(search *s, int at, wide low, wide high) {
  if (high < s->least[at] || low > s->most[at]) return 0;
  if (at == s->count || ++s->steps > BUDGET) return 1;
  const term *t = &s->terms[at];
  wide first = -floor_divide(-(low - s->most[at + 1]), t->stride);
  wide last = floor_divide(high - s->least[at + 1], t->stride);
  if (first < t->low) first = t->low;
  if (last > t->high) last = t->high;
  for (wide c = first; c <= last; c++)
    if (can_reach(s, at + 1, low - c * t->stride, high - c * t->stride)) return 1;
  return 0;
}

tare_span tare_span_of(const tare_footprint *footprint) {
  tare_span span = {(uint64_t)footprint->data, (uint64_t)footprint->element};
  for (int axis = 0; axis < TARE_FOOTPRINT_AXES; axis++) {
    const int64_t reach = (footprint->length[axis] - 1) * footprint->stride[axis];
    if (reach < 0) span.start += (uint64_t)reach;
    span.bytes += (uint64_t)(reach < 0 ? -reach : reach);
  }
  return span;
}

int tare_footprints_overlap(const tare_footprint *a, const tare_footprint *b) {
  search s = {0};
  for (int axis = 0; axis < TARE_FOOTPRINT_AXES; axis++) {
    add_term(&s, a->stride[axis], a->length[axis], 1);
    add_term(&s, b->stride[axis], b->length[axis], -1);
  }
  for (int i = s.count - 1; i >= 0; i--) {
    s.least[i] = s.least[i + 1] + s.terms[i].low * s.terms[i].stride;
    s.most[i] = s.most[i + 1] + s.terms[i].high * s.terms[i].stride;
  }
  const wide distance = (wide)b->data - a->data;
  return can_reach(&s, 0, distance - (a->element - 1), distance + (b->element - 1));
}
