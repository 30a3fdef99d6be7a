#pragma once
#include "training.hpp"

namespace lmq {

/// As train_rows, by logits of their own for the (at most) five points about each weight: the weight is their soft mean
/// softmax(kappa logit / tau), annealed from tau = 2, kappa = 1 to tau = .05, kappa = 5. Eight times the points of
/// largest logit are tried as codes. Memory: 60 bytes a weight. About 310 ns a weight and step.
/// Source: after GSQ (arXiv 2604.18556), without its Gumbel noise.
void train_logits(GridRows& rows, const Training& training, BestRows& best, TrainingScratch& scratch);

}  // namespace lmq
