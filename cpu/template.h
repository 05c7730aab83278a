/* SPDX-License-Identifier: Apache-2.0 */
/* Everything of one instruction set for one type: the includer defines REAL_BITS as 64 and then as 32 (the latter calls
 * the former for what is done in double). */

#if REAL_BITS == 64
#define real double
#define F(name) name##_f64
#define F_MEMBER f64
#define REAL_DTYPE TARE_DTYPE_F64
#define scratch_f64 tare_scratch_f64
#else
#define real float
#define F(name) name##_f32
#define F_MEMBER f32
#define REAL_DTYPE TARE_DTYPE_F32
#define scratch_f32 tare_scratch_f32
#endif

#include "primitives.h"

#include "losses/formulas.h"
#include "losses/ghm_r.h"
#include "losses/sigmoid_ce.h"
#include "losses/sigmoid_focal.h"
#include "losses/sigmoid_poly1.h"
#include "losses/softmax_ce.h"
#include "losses/softmax_focal.h"

#if REAL_BITS == 32 && defined(__AVX512BW__)
#define HAS_FEW_BINS
#include "few_bins.h"
#endif
#include "density.h"
#include "transfer.h"

#include "targets_row.h"

#include "sigmoid.h"

#include "softmax.h"

#undef real
#undef F
#undef F_MEMBER
#undef REAL_DTYPE
#undef REAL_BITS
