// Functions that a model defines. A call is replaced by the nodes of the body, whose own names
// become names that no other value has.
#pragma once

#include "core/memory.h"
#include "onnx/wire.h"

namespace ortolan::onnx {

struct Import {
  String domain;
  int64_t version;
};

struct Function {
  Message message;
  uint64_t fields = 0;     // of the message: what one call costs
  bool is_called = false;  // what is in its body is read for each call anew
  size_t imports = 0, imports_end = 0;
};

// What names stand for. Open addressing; an entry stays.
class Dictionary {
 public:
  struct Entry {
    String key, text;
    size_t index;
  };

  explicit Dictionary(const Allocator& allocator) : entries_(allocator), slots_(allocator) {}
  const Entry* find(String key) const;
  // The key is not there yet. False when memory is out.
  [[nodiscard]] bool add(const Entry& entry);
  void replace(const Entry* entry, size_t index) { entries_[place_of(entry)].index = index; }
  bool empty() const { return entries_.empty(); }

 private:
  size_t place_of(const Entry* entry) const {
    return static_cast<size_t>(entry - entries_.begin());
  }
  void place(size_t index);

  List<Entry> entries_;
  List<uint32_t> slots_;  // places of entries from 1; 0: none
  uint32_t salt_ = 0;
};

// One call: what names mean in the body, and where the values of its attributes are.
struct Scope {
  Scope(const Allocator& allocator, Scope* caller, const Message& call, size_t function)
      : caller(caller),
        call(call),
        function(function),
        depth(caller ? caller->depth + 1 : 1),
        names(allocator) {}

  Scope* caller;
  Message call;
  size_t function;
  uint32_t depth;
  Dictionary names;
};

// An attribute, and what a single pass over its fields tells: lists of numbers may be long.
struct AttributeMessage {
  explicit AttributeMessage(const Message& message);
  bool has(uint32_t field) const { return fields >> field & 1; }

  Message message;
  String name, reference;
  uint64_t kind = 0;    // as stated
  uint32_t fields = 0;  // a bit for each number that is there
  size_t ints = 0;      // how many there are
};

// A node and the call that it stands in; null: in a graph of the model.
struct Item {
  Message node;
  Scope* scope;
};

// The nodes of a graph, calls replaced.
struct Body {
  // An output of a function that is one of its inputs, or another output.
  struct Alias {
    String from, to;
  };

  Body(const Allocator& allocator, const Message& graph, Scope* scope)
      : graph(graph), scope(scope), items(allocator), aliases(allocator) {}

  Message graph;
  Scope* scope;
  List<Item> items;
  List<Alias> aliases;
};

}  // namespace ortolan::onnx
