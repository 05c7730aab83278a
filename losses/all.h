/* SPDX-License-Identifier: Apache-2.0 */
/* The formulas of all losses that go over elements or rows, for both backends. A template: see formulas.h. */
#include "losses/formulas.h"
#include "losses/scored.h"
#include "losses/sigmoid_ce.h"
#include "losses/sigmoid_focal.h"
#include "losses/sigmoid_iou_aware.h"
#include "losses/sigmoid_matchability.h"
#include "losses/sigmoid_poly1.h"
#include "losses/sigmoid_quality_focal.h"
#include "losses/sigmoid_varifocal.h"
#include "losses/softmax_ce.h"
#include "losses/softmax_focal.h"
