/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the targets of the library share.
 */
#include "calls.h"

#include <string.h>

tare_context *fuzz_context(fuzz_input *input) {
  static tare_context *contexts[2];
  const int64_t which = take_below(input, 2);
  if (contexts[which] != NULL) return contexts[which];
  tare_context_options options;
  tare_context_options_init(&options);
  options.device = TARE_DEVICE_CPU;
  options.threads = which == 0 ? 1 : 3;
  const tare_status status = tare_context_create(&contexts[which], &options);
  EXPECT(status == TARE_STATUS_OK, "%s", tare_error_text(NULL));
  return contexts[which];
}

static void strides_of(const tare_strides *s, int64_t strides[5]) {
  const int64_t all[5] = {s->image, s->y, s->x, s->anchor, s->cls};
  memcpy(strides, all, sizeof all);
}

int64_t fuzz_span(const int64_t lengths[5], const tare_strides *given, int64_t *below) {
  double low = 0, high = 0; /* exact where it matters */
  int64_t strides[5];
  strides_of(given, strides);
  *below = 0;
  for (int axis = 0; axis < 5; axis++) {
    if (lengths[axis] == 0 && axis < 4) return 0;
    if (lengths[axis] <= 1) continue;
    const double reach = (double)strides[axis] * (double)(lengths[axis] - 1);
    if (reach < 0) {
      low -= reach;
    } else {
      high += reach;
    }
  }
  if (low + high > 0x1p59) return FUZZ_HUGE;
  if (low + high > 131072) return FUZZ_FAR;
  *below = (int64_t)low;
  return (int64_t)(low + high) + 1;
}

void *fuzz_array(fuzz_input *input, const int64_t lengths[5], const tare_strides *strides, size_t element) {
  int64_t below;
  const int64_t span = fuzz_span(lengths, strides, &below);
  if (span == FUZZ_FAR) return NULL;
  if (span == FUZZ_HUGE || span == 0) return guarded(input, element, element);
  unsigned char *start = guarded(input, (size_t)span * element, element);
  return start + (size_t)below * element;
}

void fuzz_expect_kept(const tare_context *context, tare_status status) {
  const char *text = tare_error_text(context);
  EXPECT(strcmp(tare_status_name(status), "unknown status") != 0, "%d", (int)status);
  fuzz_count(status == TARE_STATUS_OK);
  if (status == TARE_STATUS_OK) return;
  EXPECT(text[0] != '\0' && memchr(text, 0, 1024) != NULL, "%s without a text", tare_status_name(status));
  if (status == (tare_status)6)
    return; /* TARE_STATUS_INVALID_TARGET: the one status after which outputs were written */
  EXPECT(guarded_is_unchanged(), "%s (%s), but something was written", tare_status_name(status), text);
}
