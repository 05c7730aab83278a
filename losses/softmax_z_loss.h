/* SPDX-License-Identifier: Apache-2.0 */
/* z-loss of a softmax row: lambda*LSE^2, in double whatever the type of the logits. Its gradient is 2*lambda*LSE*p_k.
 * So a class off the label has 1 + slope times the gradient of cross-entropy. Included as losses/formulas.h is. */

typedef struct z_loss_part {
  double loss, slope; /* slope = 2*lambda*LSE */
} z_loss_part;

/** z = x_y - others, others the LSE of the classes off the label, log1p_e = log(1 + e^-|z|). */
TARE_INLINE z_loss_part z_loss_of(double label_x, double others, double z, double log1p_e, double lambda) {
  const double lse = (z > 0 ? label_x : others) + log1p_e;
  z_loss_part part;
  part.loss = lambda * lse * lse;
  part.slope = 2 * lambda * lse;
  return part;
}
