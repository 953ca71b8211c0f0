// The options of a model: the input is lines of key=value. Whatever they say, a small model loads
// and runs, or an error says which of them is wrong.
#include "models.h"
#include "wire.h"

namespace {

using namespace driver;
using wire::Message;

// y = Relu(x)
const std::string& relu() {
  static const std::string bytes = [] {
    Message type = Message().message(1, Message().number(1, 1));
    Message graph;
    graph.message(1, Message().text(1, "x").text(2, "y").text(4, "Relu")).text(2, "g");
    graph.message(11, Message().text(1, "x").message(2, type));
    graph.message(12, Message().text(1, "y"));
    Message model;
    model.number(1, 8).message(7, graph).message(8, Message().text(1, "").number(2, 17));
    return model.bytes();
  }();
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::pair<std::string, std::string>> pairs(1);
  bool is_value = false;
  for (size_t i = 0; i < size && pairs.size() < 20; ++i) {
    char c = static_cast<char>(data[i]);
    if (c == '\n')
      pairs.emplace_back(), is_value = false;
    else if (c == '=' && !is_value)
      is_value = true;
    else if (c)
      (is_value ? pairs.back().second : pairs.back().first) += c;
  }
  std::vector<OrtolanOption> options;
  for (const auto& [key, value] : pairs) options.push_back({key.c_str(), value.c_str()});
  Memory memory;
  OrtolanHooks hooks = {sizeof(hooks), &memory, take, give, nullptr};
  OrtolanModel* model = nullptr;
  OrtolanStatus status = ortolan_model_load(relu().data(), relu().size(), options.data(),
                                            options.size(), &hooks, &model);
  if (status && !*ortolan_model_error(model)) give_up("an error without text", "load");
  OrtolanRun* run = nullptr;
  if (!status) status = ortolan_run_create(model, &run);
  Random random(1);
  std::vector<Buffer> feeds;
  if (!status && make_feeds(model, Feeding(), random, false, &feeds)) {
    status = run_twice(run, model, feeds, "options", [] {});
    if (status && !*ortolan_run_error(run)) give_up("an error without text", "run");
  }
  ortolan_run_release(run);
  ortolan_model_release(model);
  if (memory.live) give_up("memory was not given back", std::to_string(memory.live));
  return 0;
}
