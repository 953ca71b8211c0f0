// The verifier: walks the schema's description with a list of its own instead of the C++ stack.
#include "core/ort_view.h"

namespace ortolan {

namespace {
String string_at(const uint8_t* at) {
  return at ? String{reinterpret_cast<const char*>(at + 4), read<uint32_t>(at)} : String{};
}
}  // namespace

ORTOLAN_NOINLINE const uint8_t* FbOffsets::target(size_t i) const {
  const uint8_t* at = vector_ + 4 + 4 * i;
  return at + read<uint32_t>(at);
}

ORTOLAN_NOINLINE String FbOffsets::string(size_t i) const { return string_at(target(i)); }

ORTOLAN_NOINLINE const uint8_t* FbTable::field(uint16_t slot) const {
  const uint8_t* vtable = table_ - read<int32_t>(table_);
  uint16_t at = static_cast<uint16_t>(4 + 2 * slot);
  if (at >= read<uint16_t>(vtable)) return nullptr;
  uint16_t offset = read<uint16_t>(vtable + at);
  return offset ? table_ + offset : nullptr;
}

ORTOLAN_NOINLINE const uint8_t* FbTable::follow(uint16_t slot) const {
  const uint8_t* at = field(slot);
  return at ? at + read<uint32_t>(at) : nullptr;
}

ORTOLAN_NOINLINE String FbTable::string(uint16_t slot) const { return string_at(follow(slot)); }

namespace {

using schema::Kind;

struct Pending {
  uint32_t table;  // offset in the file
  uint8_t id;      // TableId
  uint8_t depth;
};

// The budget counts long strings and vectors as well, for the loader reads or copies them once per
// use. Names are shared by all that use them, so they count little.
constexpr size_t kSharedString = 256, kSharedVector = 16;

class Verifier {
 public:
  Verifier(const uint8_t* data, size_t size, const Allocator& allocator, ErrorText& error)
      : data_(data), size_(size), error_(error), pending_(allocator), budget_(size) {}

  Status run(uint32_t root) {
    ORTOLAN_TRY(enqueue(root, static_cast<uint8_t>(schema::kRootTable), 0));
    while (!pending_.empty()) ORTOLAN_TRY(table(pending_.pop()));
    return Status::kOk;
  }

 private:
  Status bad(String what, size_t at) {
    return fail(error_, Status::kInvalidFormat, "damaged ORT format file: % at byte %", what, at);
  }
  bool inside(size_t at, size_t bytes) const { return at <= size_ && bytes <= size_ - at; }
  uint32_t word(size_t at) const { return read<uint32_t>(data_ + at); }

  // Equal tables may be written once and shared, but visiting more of them than the file has bytes
  // means that it shares them to blow up. Keeps the walk linear in the file.
  bool spend(size_t n) {
    if (n > budget_) return false;
    budget_ -= n;
    return true;
  }

  Status enqueue(size_t at, uint8_t id, uint8_t depth) {
    if (depth > schema::kMaxDepth)
      return fail(error_, Status::kLimitExceeded,
                  "ORT format file: nested deeper than % tables at byte %",
                  static_cast<int>(schema::kMaxDepth), at);
    if (!spend(1)) return bad("more tables than it has room for", at);
    if (at % 4 != 0 || !inside(at, 4)) return bad("a table lies outside", at);
    if (!pending_.push({static_cast<uint32_t>(at), id, depth}))
      return fail(error_, Status::kOutOfMemory, "memory is out");
    return Status::kOk;
  }

  Status table(Pending item) {
    size_t at = item.table;
    int64_t vtable = static_cast<int64_t>(at) - read<int32_t>(data_ + at);
    if (vtable < 0 || vtable % 2 != 0 || !inside(static_cast<size_t>(vtable), 4))
      return bad("a vtable lies outside", at);
    size_t v = static_cast<size_t>(vtable);
    size_t vtable_bytes = read<uint16_t>(data_ + v), bytes = read<uint16_t>(data_ + v + 2);
    if (vtable_bytes < 4 || vtable_bytes % 2 != 0 || !inside(v, vtable_bytes))
      return bad("a vtable has an impossible size", v);
    if (bytes < 4 || !inside(at, bytes)) return bad("a table has an impossible size", at);
    schema::TableInfo info = schema::kTables[item.id];
    for (uint8_t slot = 0; slot < info.field_count; ++slot) {
      schema::FieldInfo f = schema::kFields[info.first_field + slot];
      size_t entry = 4 + 2 * static_cast<size_t>(slot);
      size_t offset = entry < vtable_bytes ? read<uint16_t>(data_ + v + entry) : 0;
      if (offset == 0) {
        if (f.kind & schema::kRequired) return missing(item.id, slot, at);
        continue;
      }
      ORTOLAN_TRY(field(item, f, v, slot, at, offset, bytes));
    }
    return Status::kOk;
  }

  Status missing(uint8_t id, uint8_t slot, size_t at) {
    return fail(error_, Status::kInvalidFormat,
                "damaged ORT format file: table kind % lacks field % at byte %",
                static_cast<int>(id), static_cast<int>(slot), at);
  }

  Status field(Pending item, schema::FieldInfo f, size_t vtable, uint8_t slot, size_t table,
               size_t offset, size_t table_bytes) {
    Kind kind = static_cast<Kind>(f.kind & ~schema::kRequired);
    if (kind == Kind::kSkip) return Status::kOk;
    size_t at = table + offset;
    size_t width = kind == Kind::kScalar1 || kind == Kind::kEnum1 ? 1
                   : kind == Kind::kScalar8                       ? 8
                                                                  : 4;
    if (offset < 4 || offset + width > table_bytes) return bad("a field lies outside", at);
    if (kind == Kind::kEnum1 && data_[at] > f.type) return bad("an unknown enumerator", at);
    if (kind == Kind::kEnum4 && word(at) > f.type) return bad("an unknown enumerator", at);
    if (kind <= Kind::kEnum4) return Status::kOk;
    size_t target = at + word(at);
    uint8_t depth = static_cast<uint8_t>(item.depth + 1);
    switch (kind) {
      case Kind::kTable:
        return enqueue(target, f.type, depth);
      case Kind::kUnion:
        return union_member(f, vtable, slot, table, table_bytes, target, depth);
      case Kind::kString:
        return string(target);
      default:
        return vector(kind, f.type, target, depth);
    }
  }

  Status union_member(schema::FieldInfo f, size_t vtable, uint8_t slot, size_t table,
                      size_t table_bytes, size_t target, uint8_t depth) {
    size_t tag_offset = read<uint16_t>(data_ + vtable + 4 + 2 * (slot - 1));
    if (tag_offset < 4 || tag_offset >= table_bytes) return bad("a union without a tag", table);
    uint8_t tag = data_[table + tag_offset];
    schema::UnionInfo members = schema::kUnions[f.type];
    if (tag == 0 || tag > members.count) return bad("an unknown union tag", table + tag_offset);
    return enqueue(target, schema::kUnionMembers[members.first + tag - 1], depth);
  }

  Status string(size_t at) {
    if (at % 4 != 0 || !inside(at, 5)) return bad("a string lies outside", at);
    size_t length = word(at);
    if (length > size_ - at - 5) return bad("a string is longer than the file", at);
    if (!spend(length / kSharedString)) return bad("more text than it has room for", at);
    if (data_[at + 4 + length] != 0) return bad("a string without its end", at);
    return Status::kOk;
  }

  Status vector(Kind kind, uint8_t type, size_t at, uint8_t depth) {
    if (at % 4 != 0 || !inside(at, 4)) return bad("a vector lies outside", at);
    size_t width = kind == Kind::kVector1   ? 1
                   : kind == Kind::kVector8 ? 8
                   : kind == Kind::kStructs ? schema::kStructs[type].size
                                            : 4;
    size_t n = word(at);
    if (n > (size_ - at - 4) / width) return bad("a vector is longer than the file", at);
    if (!spend(n * width / kSharedVector)) return bad("more data than it has room for", at);
    if (kind != Kind::kStrings && kind != Kind::kTables) return Status::kOk;
    if (!spend(n)) return bad("more entries than it has room for", at);
    for (size_t i = 0; i < n; ++i) {
      size_t entry = at + 4 + 4 * i, target = entry + word(entry);
      if (kind == Kind::kTables)
        ORTOLAN_TRY(enqueue(target, type, depth));
      else
        ORTOLAN_TRY(string(target));
    }
    return Status::kOk;
  }

  const uint8_t* data_;
  size_t size_;
  ErrorText& error_;
  List<Pending> pending_;
  size_t budget_;
};

}  // namespace

Status verify_ort(const uint8_t* data, size_t size, const Allocator& allocator, ErrorText& error,
                  FbTable* root) {
  if (size < 12)
    return fail(error, Status::kInvalidFormat, "no ORT format file: it has only % bytes", size);
  if (size >= 0x80000000u)
    return fail(error, Status::kLimitExceeded, "ORT format files end at 2 GB; this one has % bytes",
                size);
  if (read<uint32_t>(data + 4) != schema::kFileIdentifier)
    return fail(error, Status::kInvalidFormat,
                "no ORT format file: it lacks the marker ORTM; convert ONNX models first (ortolan "
                "convert model.onnx)");
  Verifier verifier(data, size, allocator, error);
  uint32_t at = read<uint32_t>(data);
  ORTOLAN_TRY(verifier.run(at));
  *root = FbTable(data + at);
  String version = root->string(schema::InferenceSessionTable::kOrtVersion);
  if (version.size != 1 || version.data[0] < schema::kFirstVersion ||
      version.data[0] > schema::kLastVersion)
    return fail(error, Status::kInvalidFormat, "ORT format version \"%\" is not known; 1 to 6 are",
                version);
  return Status::kOk;
}

}  // namespace ortolan
