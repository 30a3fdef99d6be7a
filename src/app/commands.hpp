#pragma once
#include "lmq/run/comm.hpp"
#include "options.hpp"

namespace lmq::app {

/// The commands. Results go to standard output on rank 0; the return value is the exit code; failures throw.
/// quantize, verify and plan are collective, the others are for one rank.
int quantize(Comm& comm, const Options& options);
int verify(Comm& comm, const Options& options);
int plan(Comm& comm, const Options& options);
/// plan --curve TENSOR: levels against error, by every method.
int plan_curve(const Options& options);
int inspect(const Options& options);
int export_file(const Options& options);
/// The table of methods and their options, or with --json all of it for programs.
int methods(const Options& options);
int show_version();

}  // namespace lmq::app
