/* SPDX-License-Identifier: Apache-2.0 */
#include "class_mask.h"

/** Where the byte of image 0 and class 0 is, and how far the others are. */
typedef struct mask_layout {
  int64_t origin, image, cls, bytes;
} mask_layout;

static mask_layout lay_out(const problem *p) {
  const mask_placement *place = &p->mask_place;
  const int64_t images = place->is_one ? 1 : p->images, classes = p->classes;
  mask_layout m = {0};
  m.cls = place->channels_first ? images * (1 + place->image_pad) : 1 + place->class_pad;
  m.image = place->channels_first ? 1 + place->image_pad : classes * m.cls + place->image_pad;
  m.bytes = place->channels_first ? classes * m.cls : images * m.image;
  if (place->is_one) m.image = 0;
  if (!place->flips || images == 0) return m;
  m.origin = (images - 1) * m.image + (classes - 1) * m.cls;
  m.image = -m.image;
  m.cls = -m.cls;
  return m;
}

buffer *class_mask_buffer(const problem *p, const test_device *device) {
  if (p->class_mask == NULL) return NULL;
  const mask_layout m = lay_out(p);
  buffer *b = buffer_new(device, (size_t)m.bytes, 0);
  for (int64_t i = 0; i < (p->mask_place.is_one ? 1 : p->images); i++)
    for (int64_t c = 0; c < p->classes; c++)
      b->before[m.origin + i * m.image + c * m.cls] = p->class_mask[i * p->classes + c];
  buffer_upload(b);
  return b;
}

void class_mask_give(const problem *p, const buffer *mask, tare_batch *batch) {
  if (mask == NULL) return;
  const mask_layout m = lay_out(p);
  batch->class_mask = (const uint8_t *)buffer_memory(mask) + m.origin;
  batch->class_mask_image_stride = m.image;
  batch->class_mask_class_stride = m.cls;
}
