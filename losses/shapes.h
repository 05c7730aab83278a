/* SPDX-License-Identifier: Apache-2.0 */
/* The losses whose negatives are not focal's: which formula of losses/sigmoid_shaped.h. They share loops and kernels,
 * which look the shape up where other losses look a power up. */
#ifndef TARE_LOSSES_SHAPES_H
#define TARE_LOSSES_SHAPES_H

enum tare_shape {
  TARE_SHAPE_NONE = -1,
  TARE_SHAPE_SMOOTHED,     /* label smoothing of the cross-entropy alone */
  TARE_SHAPE_SMOOTHED_ALL, /* and of the modulator */
  TARE_SHAPE_TWO_GAMMAS,   /* asymmetric loss without a margin */
  TARE_SHAPE_MARGIN,       /* asymmetric loss */
  TARE_SHAPE_REDUCED,      /* reduced focal loss */
  TARE_SHAPE_STAR,         /* focal loss star */
  TARE_SHAPE_COUNT
};

#endif
