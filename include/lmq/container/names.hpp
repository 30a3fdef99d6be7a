#pragma once

/// Every name that our file has of its own (docs/format.md, section 1): writer and reader spell them here alone. Those
/// that only version 1 had are in src/container/version1.cpp.
namespace lmq::container {

inline constexpr const char* kFormat = "lmq_format";  ///< root attribute: major and minor version
inline constexpr unsigned kMajor = 2, kMinor = 0;

// Attributes of a tensor.
inline constexpr const char* kMethod = "lmq_method";
inline constexpr const char* kBitsPerWeight = "lmq_bits_per_weight";

// Group and datasets.
inline constexpr const char* kGroup = "/lmq";
inline constexpr const char* kRecipe = "/lmq/recipe";
inline constexpr const char* kProvenance = "/lmq/provenance";
inline constexpr const char* kTensors = "/lmq/tensors";
inline constexpr const char* kCodebooks = "/lmq/codebooks";
inline constexpr const char* kSourceDigests = "/lmq/source_digests";

// Keys of the text at kTensors: what there is once, columns with a value per tensor, columns with a value per unit of
// the tensors of several units.
inline constexpr const char* kPlanDigest = "plan_digest";
inline constexpr const char* kRecordBytes = "record_bytes";
inline constexpr const char* kPurposes[] = {"record_headers", "codebooks", "tables", "codes"};
inline constexpr const char* kTensorColumns = "tensors";
inline constexpr const char* kUnitColumns = "units";
inline constexpr const char* kName = "name";
inline constexpr const char* kDtype = "dtype";
inline constexpr const char* kShape = "shape";
inline constexpr const char* kMethodName = "method";
inline constexpr const char* kBits = "bits_per_weight";
inline constexpr const char* kReason = "reason";
inline constexpr const char* kGranularity = "granularity";
inline constexpr const char* kGroupWeights = "group";
inline constexpr const char* kLevels = "levels";
inline constexpr const char* kCodebook = "codebook";
inline constexpr const char* kCodebookHolds = "codebook_holds";
inline constexpr const char* kEntropyBits = "entropy_bits";
inline constexpr const char* kSourceBytes = "source_bytes";
inline constexpr const char* kUnitElements = "unit";
inline constexpr const char* kSquaredError = "squared_error";
inline constexpr const char* kWeightedError = "weighted_error";
inline constexpr const char* kWeightedEnergy = "weighted_energy";
inline constexpr const char* kEnergy = "energy";
inline constexpr const char* kLargestError = "largest_error";

}  // namespace lmq::container
