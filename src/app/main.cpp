#include "app.hpp"

int main(int argc, char** argv) { return lmq::app::run(argc, argv); }
