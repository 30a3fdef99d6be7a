// What the rooms below call of fmt and xxHash, compiled here from their headers: the plug-in needs neither library where it
// is loaded.
#define FMT_HEADER_ONLY
#include <fmt/format.h>

#define XXH_STATIC_LINKING_ONLY
#define XXH_IMPLEMENTATION
#include <xxhash.h>

#include <string>

/// Makes the compiler keep the one function of fmt that other objects call.
[[gnu::used]] std::string (*const lmq_keeps_vformat)(fmt::string_view, fmt::format_args) = fmt::vformat;
