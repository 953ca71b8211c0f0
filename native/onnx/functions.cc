// Calls of the model's functions, names in their bodies, and attributes that refer to the call's.
#include "onnx/functions.h"

#include "onnx/reader.h"

namespace ortolan::onnx {

namespace {

constexpr uint32_t kMaxCalls = 64;  // in each other
constexpr size_t kShownName = 48;   // bytes of a name that its new name shows

// In a list of attributes; the last, as everywhere.
Message find_by_name(const Message& of, uint32_t field, String name, uint64_t* work) {
  Message found;
  for (Fields each = of.each(field); each.next(); ++*work)
    if (each.message().text(attribute::kName) == name) found = each.message();
  return found;
}

}  // namespace

const Dictionary::Entry* Dictionary::find(String key) const {
  if (slots_.empty()) return nullptr;
  const size_t mask = slots_.size() - 1;
  for (size_t i = name_hash(key, salt_) & mask; slots_[i]; i = (i + 1) & mask)
    if (entries_[slots_[i] - 1].key == key) return &entries_[slots_[i] - 1];
  return nullptr;
}

void Dictionary::place(size_t index) {
  const size_t mask = slots_.size() - 1;
  size_t i = name_hash(entries_[index].key, salt_) & mask;
  while (slots_[i]) i = (i + 1) & mask;
  slots_[i] = static_cast<uint32_t>(index + 1);
}

bool Dictionary::add(const Entry& entry) {
  if (entries_.empty() && !entries_.reserve(4)) return false;
  if (!entries_.push(entry)) return false;
  if (entries_.size() * 2 <= slots_.size()) {
    place(entries_.size() - 1);
    return true;
  }
  const size_t capacity = max<size_t>(8, slots_.size() * 2);
  slots_.clear();
  if (!slots_.resize(capacity, 0)) return false;
  salt_ = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(slots_.begin()) >> 12);
  for (size_t i = 0; i < entries_.size(); ++i) place(i);
  return true;
}

OnnxReader::~OnnxReader() {
  const Allocator& allocator = model_.allocator();
  for (Scope* scope : scopes_) {
    scope->~Scope();
    allocator.put(scope, sizeof(Scope));
  }
}

// What calls cost beyond the nodes that they bring: a small model must not ask for much.
Status OnnxReader::charge(uint64_t work) {
  work_ += work;
  if (work_ / 16 <= model_.options.max_nodes) return Status::kOk;
  return fail(error_, Status::kLimitExceeded,
              "the model's functions bring more than % nodes, "
              "the limit",
              static_cast<int64_t>(model_.options.max_nodes));
}

// Domain, name and overload as one text.
Status OnnxReader::function_key(String domain, String name, String overload, String* key) {
  domain = canonical(domain);
  key_.clear();
  const String parts[] = {domain, name, overload};
  for (const String& part : parts) {
    for (size_t i = 0; i < part.size; ++i)
      if (!key_.push(part.data[i])) return out_of_memory();
    if (!key_.push('\0')) return out_of_memory();
  }
  *key = {key_.begin(), key_.size()};
  return Status::kOk;
}

Status OnnxReader::read_functions(const Message& model) {
  for (Fields each = model.each(model::kFunctions); each.next();) {
    Function f;
    f.message = each.message();
    String key, kept;
    ORTOLAN_TRY(function_key(f.message.text(function::kDomain), f.message.text(function::kName),
                             f.message.text(function::kOverload), &key));
    ORTOLAN_TRY(keep_text(key, &kept));
    f.fields = f.message.count(0);
    f.imports = imports_.size();
    for (Fields imports = f.message.each(function::kOpsetImport); imports.next();)
      if (!imports_.push(import_of(imports.message()))) return out_of_memory();
    f.imports_end = imports_.size();
    const size_t index = functions_.size();
    const Dictionary::Entry* known = function_names_.find(kept);
    if (known) function_names_.replace(known, index);
    if (!functions_.push(f) || (!known && !function_names_.add({kept, {}, index})))
      return out_of_memory();
  }
  return Status::kOk;
}

// Fills a body with the nodes of its graph, and of all that they call.
Status OnnxReader::expand(Body& body) {
  struct Frame {
    Fields nodes;
    Scope* scope;
  };
  List<Frame> frames(model_.allocator());
  if (!frames.push({body.graph.each(graph::kNode), body.scope})) return out_of_memory();
  while (!frames.empty()) {
    Frame& top = frames[frames.size() - 1];
    if (!top.nodes.next()) {
      frames.pop();
      continue;
    }
    const Item item = {top.nodes.message(), top.scope};
    const Dictionary::Entry* called = nullptr;
    if (!function_names_.empty()) {
      String key;
      ORTOLAN_TRY(function_key(item.node.text(node::kDomain), item.node.text(node::kOpType),
                               item.node.text(node::kOverload), &key));
      called = function_names_.find(key);
    }
    if (!called) {
      if (!body.items.push(item)) return out_of_memory();
      if (body.items.size() > model_.options.max_nodes) break;  // reserve() refuses
      continue;
    }
    Scope* scope;
    ORTOLAN_TRY(enter(body, item, called->index, &scope));
    if (!frames.push({functions_[called->index].message.each(function::kNode), scope}))
      return out_of_memory();
  }
  return Status::kOk;
}

Status OnnxReader::enter(Body& body, const Item& call, size_t index, Scope** result) {
  Function& f = functions_[index];
  Node shown;
  shown.type = call.node.text(node::kOpType);
  shown.name = call.node.text(node::kName);
  uint32_t depth = 1;
  for (Scope* each = call.scope; each; each = each->caller, ++depth)
    if (each->function == index)
      return node_error(shown, Status::kInvalidGraph, "the function calls itself");
  if (depth > kMaxCalls)
    return node_error(shown, Status::kLimitExceeded, "functions call each other deeper than %",
                      kMaxCalls);
  ORTOLAN_TRY(charge(1 + f.fields + (f.is_called ? f.message.size() / 2 : 0)));
  f.is_called = true;
  for (size_t i = f.imports; i < f.imports_end; ++i) ORTOLAN_TRY(check_import(imports_[i]));
  const Allocator& allocator = model_.allocator();
  void* memory = allocator.get(sizeof(Scope));
  if (!memory || !scopes_.push(static_cast<Scope*>(memory))) {
    allocator.put(memory, sizeof(Scope));
    return out_of_memory();
  }
  *result = new (memory, Zone::Placement{}) Scope(allocator, call.scope, call.node, index);
  ORTOLAN_TRY(bind_formals(body, call, f, **result, shown));
  return Status::kOk;
}

// Inputs and outputs of a function are called as those of the call.
Status OnnxReader::bind_formals(Body& body, const Item& call, const Function& f, Scope& scope,
                                const Node& shown) {
  const size_t counts[][2] = {
      {call.node.count(node::kInput), f.message.count(function::kInput)},
      {call.node.count(node::kOutput), f.message.count(function::kOutput)},
  };
  for (const auto& [given, most] : counts)
    if (given > most)
      return node_error(shown, Status::kInvalidGraph, "it has % %, but the function has %", given,
                        &most == &counts[0][1] ? String("inputs") : String("outputs"), most);
  Fields actual = call.node.each(node::kInput);
  bool more = true;
  for (Fields formal = f.message.each(function::kInput); formal.next();) {
    String name;  // of an input that is left out: none
    more = more && actual.next();
    if (more) ORTOLAN_TRY(full_name(call.scope, actual.text(), &name));
    if (scope.names.find(formal.text())) continue;
    if (!scope.names.add({formal.text(), name, 0})) return out_of_memory();
  }
  actual = call.node.each(node::kOutput);
  Fields formal = f.message.each(function::kOutput);
  while (actual.next() && formal.next()) {
    String name;
    ORTOLAN_TRY(full_name(call.scope, actual.text(), &name));
    if (!name.size) continue;
    if (const Dictionary::Entry* known = scope.names.find(formal.text())) {
      if (!body.aliases.push({known->text, name})) return out_of_memory();
    } else if (!scope.names.add({formal.text(), name, 0})) {
      return out_of_memory();
    }
  }
  return Status::kOk;
}

// The name in all of the model of what is called `name` where a node stands.
Status OnnxReader::full_name(Scope* scope, String name, String* full) {
  *full = name;
  if (!scope || !name.size) return Status::kOk;
  if (const Dictionary::Entry* known = scope->names.find(name)) {
    *full = known->text;
    return Status::kOk;
  }
  size_t shown = min(name.size, kShownName);
  while (shown && shown < name.size && (name.data[shown] & 0xc0) == 0x80) --shown;
  char digits[20];
  size_t n = 0;
  for (uint64_t number = ++made_names_; number; number /= 10)
    digits[n++] = static_cast<char>('0' + number % 10);
  const size_t size = marks_ + 1 + n + 1 + shown;
  auto* text = static_cast<char*>(model_.zone.allocate(size, 1));
  if (!text) return out_of_memory();
  *full = {text, size};
  // No text of the model begins with so many marks.
  for (size_t i = 0; i <= marks_; ++i) *text++ = kMark;
  while (n) *text++ = digits[--n];
  *text++ = ' ';
  if (shown) copy(text, name.data, shown);
  return scope->names.add({name, *full, 0}) ? Status::kOk : out_of_memory();
}

// Follows an attribute that refers to one of the call. Empty where neither the call nor the
// function has it: then the node has none.
Status OnnxReader::dereference(AttributeMessage* attribute, Scope** scope) {
  while (attribute->reference.size) {
    if (!*scope)
      return fail(error_, Status::kInvalidGraph,
                  "attribute \"%\" refers to one of a function, but is in none", attribute->name);
    uint64_t work = 0;
    const String name = attribute->reference;
    Message found = find_by_name((*scope)->call, node::kAttribute, name, &work);
    Scope* caller = (*scope)->caller;
    if (!found) {
      const Message& function = functions_[(*scope)->function].message;
      found = find_by_name(function, function::kDefaults, name, &work);
      caller = nullptr;
    }
    ORTOLAN_TRY(charge(work));
    *attribute = AttributeMessage(found);
    *scope = caller;
  }
  return Status::kOk;
}

}  // namespace ortolan::onnx
