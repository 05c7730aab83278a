/* SPDX-License-Identifier: Apache-2.0 */
#include "masks.h"

static size_t target_size(const mask_plan *plan) {
  return plan->target_dtype == TARE_MASK_TARGET_U8 ? 1 : dtype_size(plan->target_dtype);
}

static void put_target(const mask_case *c, size_t at, double t) {
  if (c->plan.target_dtype == TARE_MASK_TARGET_U8)
    c->targets->before[at] = (unsigned char)t;
  else
    store_element(c->targets->before, at, c->plan.target_dtype, t);
}

/* The place of a pixel in an array with gaps. */
static size_t place(const mask_case *c, int64_t mask, int64_t pixel) {
  return (size_t)(mask * (c->plan.pixels + c->plan.gap) + pixel);
}

static double draw_target(const mask_plan *plan, random_source *random) {
  const double one = random_uniform(random);
  if (plan->soft && one < 0.3) return round_to_dtype(plan->target_dtype, random_uniform(random));
  return one < 0.5;
}

static void draw(mask_case *c) {
  const mask_plan *plan = &c->plan;
  random_source random = random_from((uint64_t)(plan->masks * 7919 + plan->pixels));
  for (int64_t mask = 0; mask < plan->masks; mask++) {
    c->weight[mask] = plan->has_weights ? (double)(float)(random_normal(&random) + 0.5) : 1;
    for (int64_t i = 0; i < plan->pixels; i++) {
      const size_t at = (size_t)(mask * plan->pixels + i);
      const double x = plan->value != 0 ? plan->value : 3 * random_normal(&random) - 1;
      c->x[at] = round_to_dtype(plan->dtype, x);
      c->t[at] = draw_target(plan, &random);
      c->counts[at] = (plan->has_valid || plan->ignore_target) ? random_below(&random, 4) != 0 : 1;
    }
  }
}

void mask_case_upload(mask_case *c) {
  const mask_plan *plan = &c->plan;
  for (int64_t mask = 0; mask < plan->masks; mask++) {
    if (plan->has_weights) store_element(c->weights->before, (size_t)mask, TARE_DTYPE_F32, c->weight[mask]);
    for (int64_t i = 0; i < plan->pixels; i++) {
      const size_t from = (size_t)(mask * plan->pixels + i), to = place(c, mask, i);
      const int hidden = !c->counts[from] && plan->has_valid, ignored = !c->counts[from] && !plan->has_valid;
      store_element(c->logits->before, to, plan->dtype, c->counts[from] ? c->x[from] : (double)NAN);
      put_target(c, to, ignored ? plan->ignore_target : hidden && plan->target_dtype < 4 ? (double)NAN : c->t[from]);
      if (plan->has_valid) c->valid->before[to] = (unsigned char)(c->counts[from] ? 1 + i % 3 : 0);
    }
  }
  buffer_upload(c->logits);
  buffer_upload(c->targets);
  if (plan->has_weights) buffer_upload(c->weights);
  if (plan->has_valid) buffer_upload(c->valid);
}

static buffer *number(const test_device *device, double value) {
  const float narrow = (float)value;
  return buffer_of(device, &narrow, sizeof narrow);
}

static void allocate(mask_case *c) {
  const mask_plan *plan = &c->plan;
  const size_t all = (size_t)(plan->masks * (plan->pixels + plan->gap)), of = dtype_size(plan->dtype);
  const size_t count = (size_t)(plan->masks * plan->pixels) + 1, masks = (size_t)plan->masks;
  const size_t aside = (size_t)plan->misalign;
  c->x = calloc(count, sizeof *c->x);
  c->t = calloc(count, sizeof *c->t);
  c->counts = calloc(count, 1);
  c->found = calloc(count, sizeof *c->found);
  c->expected = calloc(count, sizeof *c->expected);
  c->weight = calloc(masks + 1, sizeof *c->weight);
  c->logits = buffer_new(c->device, all * of, aside * of);
  c->gradient = plan->in_place ? c->logits : buffer_new(c->device, all * of, aside * of);
  c->targets = buffer_new(c->device, all * target_size(plan), aside * target_size(plan));
  if (plan->has_valid) c->valid = buffer_new(c->device, all, aside);
  if (plan->has_weights) c->weights = buffer_new(c->device, masks * 4, 4);
  c->losses = buffer_new(c->device, 3 * 8, 8);
  c->mask_loss = buffer_new(c->device, masks * (plan->dtype == TARE_DTYPE_F64 ? 8 : 4), 8);
  c->sums = buffer_new(c->device, masks * sizeof(tare_mask_sums), 8);
  c->divisor = number(c->device, 7);
  c->scale = number(c->device, plan->scale != 0 ? plan->scale : 1);
}

static void point(mask_case *c) {
  const mask_plan *plan = &c->plan;
  double *const losses = c->losses->memory;
  tare_masks_init(&c->masks, plan->masks, plan->pixels);
  tare_mask_output_init(&c->output, plan->pixels);
  c->masks.logits = c->logits->memory;
  c->masks.targets = c->targets->memory;
  c->masks.valid = buffer_memory(c->valid);
  c->masks.mask_weights = buffer_memory(c->weights);
  c->masks.dtype = plan->dtype;
  c->masks.target_dtype = plan->target_dtype;
  if (plan->ignore_target) c->masks.ignore_target = plan->ignore_target;
  c->masks.logits_stride = c->masks.targets_stride = c->masks.valid_stride = plan->pixels + plan->gap;
  c->output.loss = losses;
  c->output.overlap_loss = losses + 1;
  c->output.focal_loss = losses + 2;
  c->output.loss_dtype = TARE_DTYPE_F64;
  c->output.normalizer = plan->normalizer;
  c->output.gradient = c->gradient->memory;
  c->output.gradient_stride = plan->pixels + plan->gap;
  c->output.mask_loss = c->mask_loss->memory;
  c->output.sums = c->sums->memory;
  c->output.normalizer_value = 7;
  if (plan->by_pointer) c->output.normalizer_pointer = c->divisor->memory;
  if (plan->by_pointer) c->output.gradient_scale_pointer = c->scale->memory;
  if (!plan->by_pointer && plan->scale != 0) c->output.gradient_scale = plan->scale;
}

mask_case *mask_case_new(const test_device *device, const mask_plan *plan) {
  mask_case *c = calloc(1, sizeof *c);
  uint64_t bytes = 0;
  c->device = device;
  c->plan = *plan;
  allocate(c);
  point(c);
  draw(c);
  mask_case_upload(c);
  cr_assert_eq(tare_mask_workspace_size(device->context, &c->masks, &bytes), TARE_STATUS_OK, "%s",
               tare_error_text(device->context));
  c->workspace = buffer_for_workspace(device, (size_t)bytes);
  return c;
}

void mask_case_free(mask_case *c) {
  buffer *const buffers[] = {c->logits,    c->targets, c->valid,   c->weights, c->losses,
                             c->mask_loss, c->sums,    c->divisor, c->scale,   c->workspace};
  if (c->gradient != c->logits) buffer_free(c->gradient);
  for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) buffer_free(buffers[i]);
  free(c->x), free(c->t), free(c->counts), free(c->weight), free(c->found), free(c->expected);
  free(c);
}

tare_status mask_case_run(mask_case *c) {
  tare_context *const context = c->device->context;
  cr_assert_eq(tare_context_set_workspace(context, c->workspace->memory, c->workspace->bytes), TARE_STATUS_OK);
  tare_status status = tare_mask_evaluate(context, &c->plan.spec, &c->masks, &c->output, NULL);
  if (!status) status = tare_context_synchronize(context, NULL);
  tare_context_set_workspace(context, NULL, 0);
  buffer_download(c->workspace, "workspace");
  buffer_download(c->losses, "losses");
  memcpy(c->found_losses, c->losses->now, sizeof c->found_losses);
  if (!c->plan.in_place) buffer_expect_unchanged(c->logits, "logits");
  buffer_expect_unchanged(c->targets, "targets");
  buffer_download(c->gradient, "gradient");
  for (int64_t mask = 0; mask < c->plan.masks; mask++)
    for (int64_t i = 0; i < c->plan.pixels + c->plan.gap; i++) {
      const size_t at = place(c, mask, i), size = dtype_size(c->plan.dtype);
      if (i < c->plan.pixels)
        c->found[mask * c->plan.pixels + i] = load_element(c->gradient->now, at, c->plan.dtype);
      else
        cr_assert_eq(memcmp(c->gradient->now + at * size, c->gradient->before + at * size, size), 0, "gap written to");
    }
  return status;
}
