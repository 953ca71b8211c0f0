// Kernels: the input decides a model of one node (operator, version, types, attributes, shapes,
// which operands are constant) and what it is fed. What a run leaves unwritten in its outputs, or
// writes beyond them, is found. The environment's FUZZ_FAMILY names the catalog's family to draw
// operators from; without it all are drawn from.
#include <algorithm>

#include "fuzz_operators.h"
#include "models.h"
#include "wire.h"

namespace {

using namespace driver;
using wire::Message;

// Reads decisions; zeros when the input has ended.
class Draw {
 public:
  Draw(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}
  uint32_t byte() { return at_ < end_ ? *at_++ : 0; }
  uint32_t below(uint32_t n) {
    uint32_t value = byte();
    return (n > 256 ? value << 8 | byte() : value) % n;
  }
  bool chance(uint32_t of_256) { return byte() < of_256; }

 private:
  const uint8_t *at_, *end_;
};

std::vector<const FuzzOperator*> operators() {
  const char* family = getenv("FUZZ_FAMILY");
  std::vector<const FuzzOperator*> found;
  for (const FuzzOperator& op : kFuzzOperators)
    if (!family || strcmp(op.family, family) == 0) found.push_back(&op);
  if (found.empty()) give_up("FUZZ_FAMILY has no operators", family ? family : "");
  return found;
}

struct Operand {
  std::string name;
  int32_t type = 0;
  std::vector<int64_t> dims;
  std::vector<uint8_t> bytes;  // as the C interface has them
};

class Maker {
 public:
  Maker(const FuzzOperator& op, Draw& draw) : op_(op), draw_(draw), random_(draw.below(65536) + 1) {
    static const int64_t kSizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 0, 6, 12, 64, 1};
    for (int64_t& size : sizes_) size = kSizes[draw.below(16)];
    integers_ = draw.below(4);
    std::fill(types_, types_ + 256, 0);
  }

  std::string model() {
    for (uint8_t i = 0; i < op_.input_count; ++i) {
      const FuzzParameter& p = op_.inputs[i];
      uint32_t count = p.variadic ? 1 + draw_.below(4) : 1;
      if (p.optional && draw_.chance(128)) count = 0;
      if (count == 0) node_.text(1, "");
      while (count--)
        if (draw_.byte() == 255)
          node_.text(1, "");
        else
          add_input(p);
    }
    for (uint8_t i = 0; i < op_.output_count; ++i) {
      const FuzzParameter& p = op_.outputs[i];
      uint32_t count = p.variadic ? 1 + draw_.below(4) : 1;
      if (p.optional && draw_.chance(100)) count = 0;
      if (count == 0) node_.text(2, "");
      for (; count; --count) {
        std::string name = "o" + std::to_string(outputs_++);
        node_.text(2, name);
        graph_.message(12, Message().text(1, name));
      }
    }
    node_.text(3, "node").text(4, op_.name).text(7, op_.domain);
    for (uint8_t i = 0; i < op_.attribute_count; ++i) add_attribute(op_.attributes[i]);
    size_t versions = strlen(reinterpret_cast<const char*>(op_.versions));
    uint32_t version = op_.versions[draw_.below(static_cast<uint32_t>(versions))];
    graph_.message(1, node_).text(2, "fuzz");
    Message model;
    model.number(1, 8).message(7, graph_);
    model.message(8, Message().text(1, op_.domain).number(2, version));
    if (*op_.domain) model.message(8, Message().text(1, "").number(2, 17));
    return model.bytes();
  }

  std::vector<Operand> feeds;

 private:
  int32_t type_of(const FuzzParameter& p) {
    int32_t& type = types_[p.variable];
    if (type) return type;
    std::vector<int32_t> allowed;
    for (int32_t t = 1; t < 32; ++t)
      if (p.types >> t & 1) allowed.push_back(t);
    if ((p.types & 2) && draw_.chance(24)) allowed = {10, 16};
    if (draw_.chance(3)) allowed = {static_cast<int32_t>(1 + draw_.below(16))};
    return type = allowed[draw_.below(static_cast<uint32_t>(allowed.size()))];
  }

  int64_t size() { return draw_.chance(240) ? sizes_[draw_.below(6)] : draw_.below(40); }

  void draw_shape(Operand& operand) {
    uint32_t how = draw_.below(8);
    if (how < 3 && !last_.empty()) {  // like another, or its end, or broadcast along an axis
      operand.dims = last_;
      if (how == 1) operand.dims.erase(operand.dims.begin());
      if (how == 2) operand.dims[draw_.below(static_cast<uint32_t>(last_.size()))] = size();
    } else {
      uint32_t rank = draw_.below(draw_.chance(240) ? 6 : 9);
      while (rank--) operand.dims.push_back(size());
    }
    int64_t count = 1;
    for (int64_t& dim : operand.dims) {
      if (count * dim > 20000) dim = 1;
      count *= dim;
    }
    last_ = operand.dims;
  }

  int64_t integer() {
    if (draw_.chance(8)) return draw_integer(random_);
    return draw_.chance(128) ? sizes_[draw_.below(6)] : static_cast<int64_t>(draw_.below(9)) - 3;
  }

  void draw_bytes(Operand& operand) {
    size_t count = 1;
    for (int64_t dim : operand.dims) count *= static_cast<size_t>(dim);
    if (operand.type == kString) {
      operand.bytes = string_block(count, random_);
      return;
    }
    size_t width = element_bytes(operand.type);
    operand.bytes.resize(count * width);
    bool is_integer = operand.type >= 2 && operand.type <= 13 && operand.type != 11 &&
                      operand.type != 10 && operand.type != 9;
    if (is_integer && count <= 16 && integers_ < 3) {
      for (size_t i = 0; i < count; ++i) {
        int64_t value = integer();
        memcpy(operand.bytes.data() + i * width, &value, width);
      }
      return;
    }
    int64_t fixed = integers_ == 0 ? static_cast<int64_t>(draw_.below(4)) : INT64_MIN;
    fill(operand.bytes.data(), operand.bytes.size(), operand.type, random_, false, fixed);
  }

  static Message described(const Operand& operand, bool with_shape, bool with_sizes) {
    Message shape, tensor;
    for (int64_t dim : operand.dims)
      shape.message(1, with_sizes ? Message().number(1, static_cast<uint64_t>(dim)) : Message());
    tensor.number(1, static_cast<uint64_t>(operand.type));
    if (with_shape) tensor.message(2, shape);
    return tensor;
  }

  Message stored(const Operand& operand, const std::string& name) {
    Message tensor;
    for (int64_t dim : operand.dims) tensor.number(1, static_cast<uint64_t>(dim));
    tensor.number(2, static_cast<uint64_t>(operand.type)).text(8, name);
    if (operand.type != kString)
      return tensor.text(9, std::string(operand.bytes.begin(), operand.bytes.end()));
    size_t count = 1;
    for (int64_t dim : operand.dims) count *= static_cast<size_t>(dim);
    for (size_t i = 0; i < count; ++i) {
      uint32_t ends[2];
      memcpy(ends, operand.bytes.data() + 4 * i, 8);
      tensor.text(6, std::string(operand.bytes.begin() + ends[0], operand.bytes.begin() + ends[1]));
    }
    return tensor;
  }

  void add_input(const FuzzParameter& p) {
    Operand operand;
    operand.name = "i" + std::to_string(inputs_++);
    operand.type = type_of(p);
    node_.text(1, operand.name);
    if (p.sequence) {
      Message inner = Message().message(1, described(operand, false, false));
      Message type = Message().message(4, Message().message(1, inner));
      graph_.message(11, Message().text(1, operand.name).message(2, type));
      feeds.push_back({operand.name, 0, {}, {}});  // drawn for what the model declares
      return;
    }
    draw_shape(operand);
    draw_bytes(operand);
    uint32_t how = draw_.below(8);
    if (how < 2) {
      graph_.message(5, stored(operand, operand.name));
      return;
    }
    Message type = Message().message(1, described(operand, how < 6, how < 4));
    graph_.message(11, Message().text(1, operand.name).message(2, type));
    feeds.push_back(operand);
  }

  // One of the lines, if there are any and the draw wants one.
  bool example(const char* lines, std::string* found) {
    if (!*lines || draw_.chance(60)) return false;
    std::vector<std::string> list(1);
    for (; *lines; ++lines)
      if (*lines == '\n')
        list.emplace_back();
      else
        list.back() += *lines;
    *found = list[draw_.below(static_cast<uint32_t>(list.size()))];
    return true;
  }
  static std::vector<std::string> items(const std::string& text) {
    std::vector<std::string> list(1);
    for (char c : text)
      if (c == ',')
        list.emplace_back();
      else
        list.back() += c;
    return list;
  }

  float real() { return static_cast<float>(draw_number(random_)); }

  void add_attribute(const FuzzAttribute& a) {
    static const uint8_t kTypes[] = {2, 1, 3, 7, 6, 8, 4};  // AttributeProto.AttributeType
    if (!draw_.chance(a.required ? 250 : 120)) return;
    Message m;
    m.text(1, a.name).number(20, kTypes[a.kind]);
    std::string text;
    bool has = example(a.examples, &text);
    if (a.kind == 0) {
      m.number(3, static_cast<uint64_t>(has ? atoll(text.c_str()) : integer()));
    } else if (a.kind == 1) {
      m.real(2, has ? strtof(text.c_str(), nullptr) : real());
    } else if (a.kind == 2) {
      m.text(4, has ? text : std::string(draw_.below(4), static_cast<char>(draw_.byte())));
    } else if (a.kind == 6) {
      Operand operand;
      operand.type = static_cast<int32_t>(1 + draw_.below(13));
      draw_shape(operand);
      draw_bytes(operand);
      m.message(5, stored(operand, ""));
    } else {
      std::vector<std::string> list = has ? items(text) : std::vector<std::string>(draw_.below(7));
      bool keeps = has && draw_.chance(160);
      for (const std::string& item : list) {
        if (a.kind == 3)
          m.number(8, static_cast<uint64_t>(keeps ? atoll(item.c_str()) : integer()));
        else if (a.kind == 4)
          m.real(7, keeps ? strtof(item.c_str(), nullptr) : real());
        else
          m.text(9, has ? item : std::string(draw_.below(3), 'a'));
      }
    }
    node_.message(5, m);
  }

  const FuzzOperator& op_;
  Draw& draw_;
  Random random_;
  int64_t sizes_[6];
  uint32_t integers_;
  int32_t types_[256];
  std::vector<int64_t> last_;
  size_t inputs_ = 0, outputs_ = 0;
  Message node_, graph_;
};

bool make_buffers(const OrtolanModel* model, const std::vector<Operand>& feeds,
                  std::vector<Buffer>* buffers) {
  Feeding rules;
  Random random(5);
  size_t unknown = 0;
  buffers->resize(ortolan_model_count(model, ORTOLAN_INPUT));
  for (size_t i = 0; i < buffers->size(); ++i) {
    const char* name = ortolan_model_name(model, ORTOLAN_INPUT, i);
    for (const Operand& feed : feeds) {
      if (feed.name != name) continue;
      OrtolanTensor& t = (*buffers)[i].tensor;
      t.size = sizeof(t);
      ortolan_model_tensor(model, ORTOLAN_INPUT, i, &t);
      if (feed.type == 0) {
        std::string type = ortolan_model_type(model, ORTOLAN_INPUT, i);
        (*buffers)[i].value.reset(make_container(type, t.type, random));
        continue;
      }
      t.type = feed.type;
      t.rank = static_cast<uint32_t>(feed.dims.size());
      if (t.rank > ORTOLAN_MAX_RANK) return false;
      for (uint32_t d = 0; d < t.rank; ++d) t.dims[d] = feed.dims[d];
      t.bytes = feed.bytes.size();
      (*buffers)[i].bytes.reset(new uint8_t[t.bytes]);
      if (t.bytes) memcpy((*buffers)[i].bytes.get(), feed.bytes.data(), t.bytes);
      t.data = (*buffers)[i].bytes.get();
    }
  }
  return unknown == 0;
}

// A run object of its own, whose memory is filled with another byte.
OrtolanStatus run_once(models::Model& model, std::vector<Buffer>& buffers, uint8_t filling,
                       Results* results) {
  model.memory.filling = filling;
  OrtolanRun* run = nullptr;
  OrtolanStatus status = ortolan_run_create(model.handle, &run);
  if (!status) status = feed(run, buffers);
  if (!status) status = ortolan_run_execute(run);
  if (!status) take_results(run, model.handle, results);
  if (status && !*ortolan_run_error(run)) give_up("an error without text", "run");
  if (status && getenv("FUZZ_SAY")) fprintf(stderr, "run: %s\n", ortolan_run_error(run));
  if (!status) {
    status = run_twice(run, model.handle, buffers, "run", [] {});
    if (status == ORTOLAN_LIMIT_EXCEEDED || is_random(model.handle)) status = ORTOLAN_OK;
    if (status) give_up("what ran once does not run again", ortolan_run_error(run));
  }
  ortolan_run_release(run);
  return status;
}

void show_difference(const Results& first, const Results& second) {
  for (size_t i = 0; i < first.size() && i < second.size(); ++i)
    for (size_t k = 0; k < first[i].bytes.size() && k < second[i].bytes.size(); ++k)
      if (first[i].bytes[k] != second[i].bytes[k]) {
        size_t head = first[i].bytes.size() - first[i].tensor.bytes;
        fprintf(stderr, "output %zu of %zu bytes, byte %zd: %02x and %02x\n", i,
                first[i].tensor.bytes, static_cast<ssize_t>(k - head),
                static_cast<uint8_t>(first[i].bytes[k]), static_cast<uint8_t>(second[i].bytes[k]));
        break;
      }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<const FuzzOperator*> list = operators();
  Draw draw(data, size);
  const FuzzOperator& op = *list[draw.below(static_cast<uint32_t>(list.size()))];
  Maker maker(op, draw);
  std::string bytes = maker.model();
  if (const char* path = getenv("FUZZ_MODEL")) {
    FILE* file = fopen(path, "wb");
    if (!file || fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size()) abort();
    fclose(file);
  }
  models::Model model(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), 0);
  if (getenv("FUZZ_SAY"))
    fprintf(stderr, "%s: %d %s\n", op.name, model.status, ortolan_model_error(model.handle));
  std::vector<Buffer> buffers;
  if (model.status || !make_buffers(model.handle, maker.feeds, &buffers)) return 0;
  Results first, second;
  OrtolanStatus a = run_once(model, buffers, 0xcd, &first);
  OrtolanStatus b = run_once(model, buffers, 0x37, &second);
  // Time is over where a busy machine stopped the process.
  if (a == ORTOLAN_LIMIT_EXCEEDED || b == ORTOLAN_LIMIT_EXCEEDED) return 0;
  bool is_same = a == b && (a || is_random(model.handle) || first == second);
  if (!is_same) show_difference(first, second);
  if (!is_same) give_up("results depend on what was in memory", op.name);
  return 0;
}
