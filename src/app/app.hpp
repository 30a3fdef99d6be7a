#pragma once

namespace lmq::app {

/// The whole program: parses, runs the command, says errors in one line. Returns the exit code.
int run(int argc, char** argv);

}  // namespace lmq::app
