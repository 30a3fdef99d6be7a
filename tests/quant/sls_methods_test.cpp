// The methods sls-* as quantizers: options, bad input, weights, bins.
#include <catch2/catch.hpp>
#include <string>

#include "lmq/base/error.hpp"
#include "lmq/quant/quantizer.hpp"
#include "methods/sparse/sls_quantizer.hpp"
#include "option_values.hpp"
#include "partition_twin.hpp"

using namespace lmq;

namespace {

constexpr std::string_view kFamily[] = {"sls-l1", "sls-l1l2", "sls-l0", "sls-iter", "sls-cluster"};

using Given = std::vector<std::pair<std::string_view, double>>;

std::unique_ptr<Quantizer> make(std::string_view name, std::size_t levels, const Given& given = {},
                                bool levels_given = true) {
  const QuantizerEntry& entry = find_quantizer(name);
  QuantizerOptions options{levels};
  for (const auto& [key, value] : given) samples::set_option(options, entry, key, value);
  if (entry.complete) entry.complete(options, levels_given);
  return entry.make(options);
}

std::vector<float> levels_of(const Codebook& book) { return {book.levels().begin(), book.levels().end()}; }

std::vector<float> fit(std::string_view name, std::size_t levels, const std::vector<float>& values,
                       const std::vector<float>& weights = {}, const Given& given = {}) {
  Workspace scratch;
  return levels_of(make(name, levels, given)->fit_values(values, weights, scratch));
}

std::string refusal(std::string_view name, const std::vector<float>& values, const Given& given,
                    std::size_t levels = 256) {
  try {
    Workspace scratch;
    (void)make(name, levels, given, levels != 256)->fit_values(values, {}, scratch);
  } catch (const Error& error) {
    REQUIRE(error.code == Errc::usage);
    return error.what();
  }
  FAIL("not refused");
  return {};
}

double number_after(const std::string& text, const std::string& word) {
  const auto at = text.find(word);
  REQUIRE(at != text.npos);
  return std::stod(text.substr(at + word.size()));
}

double nearest_loss(const std::vector<float>& values, const std::vector<float>& weights,
                    std::span<const float> levels) {
  double loss = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    double least = std::numeric_limits<double>::infinity();
    for (const float level : levels) least = std::min(least, std::abs(double{values[i]} - level));
    loss += (weights.empty() ? 1.0 : double{weights[i]}) * least * least;
  }
  return loss;
}

Group resolved_group(const std::vector<float>& values, const std::vector<float>& weights) {
  const auto d = twin::distinct(values, weights);
  Group g;
  for (std::size_t k = 0; k < d.values.size(); ++k) {
    g.low.push_back(static_cast<float>(d.values[k])), g.high.push_back(g.low.back());
    g.count.push_back(1), g.mass.push_back(d.weights[k]), g.mean.push_back(d.values[k]), g.scatter.push_back(0);
  }
  g.minimum = g.low.front(), g.maximum = g.high.back();
  return g;
}

}  // namespace

TEST_CASE("sls: values in hand fit as their resolved group does, whatever the scratch has seen", "[quant][sls]") {
  Workspace used;
  for (const auto name : kFamily)
    for (const std::size_t n : {1, 2, 5, 33, 1000})
      for (const bool weighted : {false, true}) {
        const auto values = twin::draw(twin::Source::laplace, n, n);
        const auto weights = weighted ? twin::random_weights(n, 3) : std::vector<float>{};
        for (const std::size_t levels : {2, 16, 256})
          for (const Given& given : {Given{}, Given{{"counting", 1}}}) {
            CAPTURE(name, n, weighted, levels, given.size());
            const auto method = make(name, levels, given);
            const auto one = levels_of(method->fit_values(values, weights, used));
            const Fit two = method->fit(resolved_group(values, weights));
            REQUIRE(two.refine.empty());
            REQUIRE(one == levels_of(two.codebook));
            REQUIRE(one.size() <= levels);
          }
      }
}

TEST_CASE("sls: as many levels as asked for, never better than the exact partition, and the l0 method is it",
          "[quant][sls]") {
  for (const auto source : {twin::Source::normal, twin::Source::student, twin::Source::uniform})
    for (const std::size_t levels : {2, 7, 16, 64}) {
      const auto values = twin::draw(source, 3000, 5);
      const auto weights = twin::random_weights(3000, 6);
      const double best = nearest_loss(values, weights, fit("kmeans", levels, values, weights));
      REQUIRE(fit("sls-l0", levels, values, weights) == fit("kmeans", levels, values, weights));
      for (const auto name : kFamily) {
        const auto found = fit(name, levels, values, weights);
        CAPTURE(name, levels, static_cast<int>(source));
        if (name != "sls-cluster") REQUIRE(found.size() == levels);
        REQUIRE(nearest_loss(values, weights, found) >= best * (1 - 1e-9));
      }
      REQUIRE(fit("sls-l1", levels, values, weights) == fit("sls-iter", levels, values, weights));
    }
}

TEST_CASE("sls: whole weights are as many equal values", "[quant][sls]") {
  const auto values = twin::draw(twin::Source::normal, 300, 8);
  std::vector<float> weights, repeated;
  for (std::size_t i = 0; i < values.size(); ++i) {
    weights.push_back(static_cast<float>(1 + i % 4));
    for (std::size_t k = 0; k <= i % 4; ++k) repeated.push_back(values[i]);
  }
  for (const auto name : kFamily)
    for (const std::size_t levels : {3, 16}) REQUIRE(fit(name, levels, values, weights) == fit(name, levels, repeated));
}

TEST_CASE("sls: a lambda that leaves too many levels is refused with one that does", "[quant][sls]") {
  const auto values = twin::draw(twin::Source::normal, 4000, 9);
  Workspace scratch;
  for (const auto& [name, extra] :
       std::vector<std::pair<std::string_view, Given>>{{"sls-l1", {}},
                                                       {"sls-l1", {{"offset", 1}}},
                                                       {"sls-l1", {{"counting", 1}}},
                                                       {"sls-l1l2", {}},
                                                       {"sls-l1l2", {{"lambda2", 1e-3}}},
                                                       {"sls-l1l2", {{"lambda2-relative", -0.5}}},
                                                       {"sls-l0", {}},
                                                       {"sls-l0", {{"zero", 1}}},
                                                       {"sls-l0", {{"zero", 2}}}})
    for (const std::size_t levels : {256, 12}) {
      Given given = extra;
      given.emplace_back("lambda", 0x1p-60);
      const std::string text = refusal(name, values, given, levels);
      CAPTURE(name, text, levels);
      given.back().second = number_after(text, "(here ");
      const auto found = make(name, levels, given)->fit_values(values, {}, scratch).levels().size();
      REQUIRE(found <= levels);
      REQUIRE(found >= levels - levels / 4);
      given.back() = {"lambda-relative", number_after(text, ", lambda-relative ") * (1 + 1e-5)};
      REQUIRE(make(name, levels, given)->fit_values(values, {}, scratch).levels().size() <= levels);
    }
}

TEST_CASE("sls: a lambda beyond the largest leaves one level, the mean; lambda 0 keeps every value", "[quant][sls]") {
  const std::vector<float> values{1, 2, 3, 4, 10};
  for (const auto name : {"sls-l1", "sls-l1l2", "sls-l0"}) {
    REQUIRE(fit(name, 16, values, {}, {{"lambda", 1e9}}) == std::vector<float>{4});
    REQUIRE(fit(name, 16, values, {}, {{"lambda-relative", 1}}) == std::vector<float>{4});
    REQUIRE(fit(name, 16, values, {}, {{"lambda", 0}}) == values);
  }
  REQUIRE(fit("sls-l1", 16, values, {}, {{"lambda", 1e9}, {"offset", 1}}) == std::vector<float>{0});
  REQUIRE(fit("sls-l0", 16, values, {}, {{"lambda", 1e9}, {"zero", 2}}) == std::vector<float>{0});
}

TEST_CASE("sls: options that contradict each other are refused", "[quant][sls]") {
  REQUIRE(refusal("sls-l1", {1, 2}, {{"lambda", 1}, {"lambda-relative", 0.5}}).find("lambda-relative") !=
          std::string::npos);
  REQUIRE(refusal("sls-l0", {1, 2}, {{"lambda", 1}, {"lambda-relative", 0.5}}).find("one of them") !=
          std::string::npos);
  REQUIRE(refusal("sls-l1l2", {1, 2}, {{"lambda2", 1}, {"lambda2-relative", 0.5}}).find("one of them") !=
          std::string::npos);
  const std::string text = refusal("sls-l1l2", twin::draw(twin::Source::normal, 500, 1), {{"lambda2", -1}}, 16);
  REQUIRE(text.find("not convex") != std::string::npos);
  const double limit = number_after(text, "must be above ");
  REQUIRE(fit("sls-l1l2", 16, twin::draw(twin::Source::normal, 500, 1), {}, {{"lambda2", limit * 0.999}}).size() == 16);
}

TEST_CASE("sls: constants, few values, huge and tiny values, and every weight", "[quant][sls]") {
  using Floats = std::vector<float>;
  for (const auto name : kFamily) {
    CAPTURE(name);
    REQUIRE(fit(name, 16, {3, 3, 3}) == Floats{3});
    REQUIRE(fit(name, 16, {-0.0f, 0.0f}) == Floats{0});
    REQUIRE(fit(name, 16, {5, 1, 5, 2}) == Floats{1, 2, 5});
    REQUIRE(fit(name, 2, {-3e38f, 3e38f}) == Floats{-3e38f, 3e38f});
    REQUIRE(fit(name, 4, {1e-45f, 3e-45f, 0}) == Floats{0, 1e-45f, 3e-45f});
    REQUIRE(fit(name, 16, {1, 2, 30}, {0, 0, 0}) == Floats{1, 2, 30});
    REQUIRE(fit(name, 2, {1, 1.5f, 30}, {3e38f, 3e38f, 3e38f}) == Floats{1.25f, 30});
    REQUIRE(fit(name, 2, {1, 1.5f, 30}, {1e-38f, 1e-38f, 1e-38f}) == Floats{1.25f, 30});
    REQUIRE(fit(name, 2, {1, 2, 30, 31}, {1, 0, 1, 0}).size() == 2);
    const auto wide = fit(name, 8, twin::draw(twin::Source::dynamic, 500, 4));
    REQUIRE(wide.size() <= 8);
    REQUIRE(!wide.empty());
  }
}

TEST_CASE("sls-l0: the level at exactly 0 is there, and costs what the exact partition with it must", "[quant][sls]") {
  const auto values = twin::draw(twin::Source::laplace, 3000, 2);
  for (const std::size_t levels : {2, 3, 8, 32}) {
    const auto with = fit("sls-l0", levels, values, {}, {{"zero", 2}});
    REQUIRE(std::ranges::find(with, 0.0f) != with.end());
    REQUIRE(with.size() == levels);
    const double loss = nearest_loss(values, {}, with);
    REQUIRE(loss <= nearest_loss(values, {}, fit("kmeans", levels - 1, values)) * (1 + 1e-9));
    REQUIRE(loss >= nearest_loss(values, {}, fit("kmeans", levels, values)) * (1 - 1e-9));
  }
}

TEST_CASE("sls-iter: the bound on the error is kept with as few levels as the path allows", "[quant][sls]") {
  const auto values = twin::draw(twin::Source::normal, 2000, 3);
  const auto weights = twin::random_weights(2000, 4);
  double energy = 0;
  for (std::size_t i = 0; i < values.size(); ++i) energy += double{weights[i]} * values[i] * values[i];
  SparseScratch s;
  load_points(values, weights, s);
  const auto path = s.l1.path(s.data(), 256);
  const std::vector<double> errors = path_errors(s, path);
  CellEnds ends;
  for (const std::size_t levels : {1, 2, 3, 100, 256}) {
    cell_ends(path, levels, s.u.size(), ends);
    REQUIRE(errors[levels - 1] == Approx(twin::loss_of(s.u, s.mass, ends)).epsilon(1e-11));
  }
  for (std::size_t k = 1; k < errors.size(); ++k) REQUIRE(errors[k] <= errors[k - 1]);
  Workspace scratch;
  for (const double bound : {0.9, 0.3, 0.05, 0.01}) {
    const auto book = make("sls-iter", 256, {{"max-error", bound}}, false)->fit_values(values, weights, scratch);
    const std::size_t found = book.levels().size();
    CAPTURE(bound, found);
    REQUIRE(nearest_loss(values, weights, book.levels()) <= bound * energy * (1 + 1e-6));
    REQUIRE(errors[found - 1] <= bound * energy);
    if (found > 1) REQUIRE(errors[found - 2] > bound * energy);
  }
  REQUIRE(refusal("sls-iter", values, {{"max-error", 1e-12}}).find("256 levels leave") != std::string::npos);
}

TEST_CASE("sls: weights may get the level of their cell as published; the nearest one is never worse", "[quant][sls]") {
  const auto values = twin::draw(twin::Source::laplace, 4000, 6);
  SparseScratch s;
  load_points(values, {}, s);
  CellEnds ends;
  cell_ends(s.l1.path(s.data(), 16), 16, s.u.size(), ends);
  const double of_cells = twin::loss_of(s.u, s.mass, ends);
  Workspace scratch;
  const auto method = make("sls-l1", 16, {{"assign", 1}});
  REQUIRE(method->traits().rounding == Rounding::cuts);
  const Codebook book = method->fit_values(values, {}, scratch);
  REQUIRE(book.cuts().size() == 15);
  double loss = 0;
  for (const float value : values) {
    const auto code = static_cast<std::size_t>(std::ranges::upper_bound(book.cuts(), value) - book.cuts().begin());
    const double e = double{value} - double{book.levels()[code]};
    loss += e * e;
  }
  REQUIRE(loss == Approx(of_cells).epsilon(1e-5));
  REQUIRE(nearest_loss(values, {}, book.levels()) < loss);
  REQUIRE(levels_of(book) == fit("sls-l1", 16, values));
  REQUIRE(make("sls-l1", 16)->fit_values(values, {}, scratch).cuts().empty());
}

TEST_CASE("sls-cluster: other seeds are other centres; restarts are the best of them", "[quant][sls]") {
  const auto values = twin::draw(twin::Source::student, 3000, 6);
  const auto loss = [&](double seed, double restarts) {
    return nearest_loss(values, {}, fit("sls-cluster", 32, values, {}, {{"seed", seed}, {"restarts", restarts}}));
  };
  REQUIRE(loss(0, 1) != loss(1, 1));
  REQUIRE(loss(0, 3) <= std::min({loss(0, 1), loss(1, 1), loss(2, 1)}) * (1 + 1e-6));
  REQUIRE(fit("sls-cluster", 32, values) == fit("sls-cluster", 32, values));
}
