#pragma once
// Kernels keep vectors in arrays (16 lanes of double in fixed order), which vectors of unknown size cannot: machines
// with those run the fixed-size set below them (SVE -> NEON). Included before hwy/foreach_target.h.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
