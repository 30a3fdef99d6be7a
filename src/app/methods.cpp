#include <fmt/format.h>

#include "commands.hpp"
#include "lmq/quant/quantizer.hpp"
#include "table.hpp"
#include "terminal.hpp"

namespace lmq::app {

int methods() {
  Table table(
      {{"method", Table::Align::left}, {"levels found by", Table::Align::left}, {"source", Table::Align::left}});
  for (const QuantizerEntry& entry : quantizers())
    table.row({std::string(entry.name), std::string(entry.summary), std::string(entry.source)});
  print(table.text());
  return 0;
}

}  // namespace lmq::app
