// Damages ORT format files where it means something. The walk follows the schema as far as the
// bytes make sense, so it also works on files that are damaged already.
#pragma once

#include <map>
#include <set>
#include <vector>

#include "driver.h"
#include "ort_schema.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace flatbuffers {

namespace schema = ortolan::schema;
using driver::Random;
using schema::Kind;

enum What : uint8_t {
  kOffset,
  kVtable,
  kVtableSize,
  kVtableEntry,
  kEnum,
  kNumber,
  kLength,
  kText,
  kWeight,
  kWhats,
};

// A piece of a file that means one thing.
struct Site {
  uint32_t at;
  uint32_t size;
  What what;
  Kind kind;       // of an offset: what it leads to
  uint16_t field;  // in schema::kFields
};

class Walk {
 public:
  Walk(const uint8_t* data, size_t size) : data_(data), size_(size) {
    if (size < 12) return;
    add(0, 4, kOffset, Kind::kTable, 0);
    add(4, 4, kText, Kind::kSkip, 0);
    tables_.push_back({word(0), static_cast<uint8_t>(schema::kRootTable)});
    while (!tables_.empty() && sites.size() < 20000) {
      auto [at, id] = tables_.back();
      tables_.pop_back();
      if (seen_.insert({at, id}).second) table(at, id);
    }
  }

  std::vector<Site> sites;

 private:
  bool inside(size_t at, size_t bytes) const { return at <= size_ && bytes <= size_ - at; }
  uint32_t word(size_t at) const {
    uint32_t value = 0;
    if (inside(at, 4)) memcpy(&value, data_ + at, 4);
    return value;
  }
  uint16_t half(size_t at) const {
    uint16_t value = 0;
    if (inside(at, 2)) memcpy(&value, data_ + at, 2);
    return value;
  }
  void add(size_t at, size_t bytes, What what, Kind kind, uint16_t field) {
    if (inside(at, bytes) && bytes)
      sites.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(bytes), what, kind, field});
  }

  void table(size_t at, uint8_t id) {
    if (!inside(at, 4)) return;
    int64_t vtable = static_cast<int64_t>(at) - static_cast<int32_t>(word(at));
    if (vtable < 0 || !inside(static_cast<size_t>(vtable), 4)) return;
    size_t v = static_cast<size_t>(vtable);
    add(at, 4, kVtable, Kind::kTable, 0);
    add(v, 2, kVtableSize, Kind::kSkip, 0);
    add(v + 2, 2, kVtableSize, Kind::kSkip, 0);
    schema::TableInfo info = schema::kTables[id];
    uint8_t tag = 0;
    for (uint8_t slot = 0; slot < info.field_count; ++slot) {
      size_t entry = v + 4 + 2 * slot;
      uint16_t number = static_cast<uint16_t>(info.first_field + slot);
      if (entry + 2 > v + half(v)) break;
      add(entry, 2, kVtableEntry, Kind::kSkip, number);
      if (half(entry)) field(at + half(entry), number, &tag);
    }
  }

  void field(size_t at, uint16_t number, uint8_t* tag) {
    schema::FieldInfo f = schema::kFields[number];
    Kind kind = static_cast<Kind>(f.kind & ~schema::kRequired);
    switch (kind) {
      case Kind::kSkip:
        return;
      case Kind::kScalar1:
        return add(at, 1, kNumber, kind, number);
      case Kind::kScalar4:
        return add(at, 4, kNumber, kind, number);
      case Kind::kScalar8:
        return add(at, 8, kNumber, kind, number);
      case Kind::kEnum1:
        *tag = inside(at, 1) ? data_[at] : 0;
        return add(at, 1, kEnum, kind, number);
      case Kind::kEnum4:
        return add(at, 4, kEnum, kind, number);
      default:
        break;
    }
    add(at, 4, kOffset, kind, number);
    size_t target = at + word(at);
    if (!inside(target, 4)) return;
    if (kind == Kind::kTable) {
      tables_.push_back({static_cast<uint32_t>(target), f.type});
    } else if (kind == Kind::kUnion) {
      schema::UnionInfo members = schema::kUnions[f.type];
      if (*tag && *tag <= members.count)
        tables_.push_back(
            {static_cast<uint32_t>(target), schema::kUnionMembers[members.first + *tag - 1]});
    } else if (seen_.insert({static_cast<uint32_t>(target), 255}).second) {
      vector(kind, f.type, target, number);
    }
  }

  void vector(Kind kind, uint8_t type, size_t at, uint16_t number) {
    size_t n = word(at), room = size_ - at - 4;
    add(at, 4, kLength, kind, number);
    if (kind == Kind::kString) return add(at + 4, n < room ? n : room, kText, kind, number);
    if (kind == Kind::kVector1) return add(at + 4, n < room ? n : room, kWeight, kind, number);
    bool is_list = kind == Kind::kStrings || kind == Kind::kTables;
    size_t width = kind == Kind::kVector8 ? 8 : 4;
    if (kind == Kind::kStructs) n *= schema::kStructs[type].size / 4;
    for (size_t i = 0; i < n && i < 1000 && inside(at + 4 + width * i, width); ++i) {
      size_t entry = at + 4 + width * i;
      Kind leads = kind == Kind::kStrings ? Kind::kString : Kind::kTable;
      add(entry, width, is_list ? kOffset : kNumber, leads, number);
      size_t target = entry + word(entry);
      if (!is_list || !inside(target, 4)) continue;
      if (kind == Kind::kTables)
        tables_.push_back({static_cast<uint32_t>(target), type});
      else if (seen_.insert({static_cast<uint32_t>(target), 255}).second)
        vector(Kind::kString, 0, target, number);
    }
  }

  const uint8_t* data_;
  size_t size_;
  std::vector<std::pair<uint32_t, uint8_t>> tables_;
  std::set<std::pair<uint32_t, uint8_t>> seen_;
};

class Mutator {
 public:
  Mutator(std::vector<uint8_t>& data, Random& random) : data_(data), random_(random) {
    for (const Site& site : Walk(data.data(), data.size()).sites) by_[site.what].push_back(site);
  }

  // Damages one place. False when there is none.
  bool damage() {
    // Every kind is as likely, though most places are offsets; weights in 1 of 20.
    for (int tries = 0; tries < 40; ++tries) {
      What what = random_.below(20) == 0 ? kWeight : static_cast<What>(random_.below(kWeight));
      std::vector<Site>& alike = by_[what];
      if (alike.empty()) continue;
      Site site = alike[random_.below(static_cast<uint32_t>(alike.size()))];
      if (site.at + site.size > data_.size()) return false;
      change(site, alike);
      return true;
    }
    return false;
  }

 private:
  uint64_t get(const Site& site) const {
    uint64_t value = 0;
    memcpy(&value, data_.data() + site.at, site.size < 8 ? site.size : 8);
    return value;
  }
  void put(const Site& site, uint64_t value) {
    memcpy(data_.data() + site.at, &value, site.size < 8 ? site.size : 8);
  }

  void change(const Site& site, const std::vector<Site>& alike) {
    uint32_t choice = random_.below(100);
    if (site.what == kOffset) {
      if (choice < 60) return retarget(site, alike);
      if (choice < 85 && regrow(site)) return;
    }
    if (site.what == kEnum && choice < 80) return put(site, random_.below(30));
    if (site.what == kText || site.what == kWeight) {
      for (uint32_t n = 1 + random_.below(4); n; --n)
        data_[site.at + random_.below(site.size)] = static_cast<uint8_t>(random_.next());
      return;
    }
    if (site.what == kNumber && choice < 50)
      return put(site, static_cast<uint64_t>(driver::draw_integer(random_)));
    if (choice < 75) return put(site, get(site) + random_.below(17) - 8);
    if (choice < 85) return put(site, get(site) ^ uint64_t{1} << random_.below(8 * site.size));
    static const float kFloats[] = {
        0, 1, -1, 0.5f, 1e-30f, 1e30f, __builtin_inff(), __builtin_nanf("")};
    if (site.size == 4 && choice < 88) {
      uint32_t bits;
      memcpy(&bits, &kFloats[random_.below(8)], 4);
      return put(site, bits);
    }
    put(site, static_cast<uint64_t>(driver::draw_integer(random_)));
  }

  // To what another offset leads: mostly one of the same field.
  void retarget(const Site& site, const std::vector<Site>& alike) {
    for (int tries = 0; tries < 50; ++tries) {
      const Site& other = alike[random_.below(static_cast<uint32_t>(alike.size()))];
      if (tries < 40 && (other.kind != site.kind || (tries < 25 && other.field != site.field)))
        continue;
      put(site, other.at + get(other) - site.at);
      return;
    }
  }

  // A copy of the vector or text behind an offset at the end of the file, longer or shorter.
  bool regrow(const Site& site) {
    size_t target = site.at + get(site);
    bool is_list = site.kind == Kind::kStrings || site.kind == Kind::kTables;
    size_t width = is_list || site.kind == Kind::kVector4 ? 4
                   : site.kind == Kind::kVector8          ? 8
                   : site.kind == Kind::kString           ? 1
                                                          : 0;
    uint32_t n;
    if (!width || target + 4 > data_.size()) return false;
    memcpy(&n, data_.data() + target, 4);
    if (n > 4096 || target + 4 + n * width > data_.size()) return false;
    std::vector<uint8_t> old(data_.begin() + static_cast<ptrdiff_t>(target + 4),
                             data_.begin() + static_cast<ptrdiff_t>(target + 4 + n * width));
    std::vector<uint32_t> picked;
    for (uint32_t i = 0; i < n; ++i) picked.push_back(i);
    uint32_t at = n ? random_.below(n + 1) : 0;
    if (n && random_.below(2))
      picked.erase(picked.begin() + at % n);
    else
      picked.insert(picked.begin() + at, n ? random_.below(n) : UINT32_MAX);
    data_.resize((data_.size() + 7) / 8 * 8 + (width == 8 ? 4 : 0));
    size_t place = data_.size();
    auto append = [&](uint64_t value, size_t bytes) {
      for (; bytes; --bytes, value >>= 8) data_.push_back(static_cast<uint8_t>(value));
    };
    append(picked.size(), 4);
    for (uint32_t i : picked) {
      uint64_t value = 0;
      if (i != UINT32_MAX)
        memcpy(&value, old.data() + i * width, width);
      else
        value = is_list ? 0 : random_.below(5);
      if (is_list) value += target + 4 + 4 * i - data_.size();
      append(value, width);
    }
    if (site.kind == Kind::kString) data_.push_back(0);
    data_.resize((data_.size() + 3) / 4 * 4);
    put(site, place - site.at);
    return true;
  }

  std::vector<uint8_t>& data_;
  Random& random_;
  std::vector<Site> by_[kWhats];
};

// For LLVMFuzzerCustomMutator.
inline size_t mutate(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  Random random(seed);
  if (size < 12 || random.below(20) == 0) return LLVMFuzzerMutate(data, size, max_size);
  std::vector<uint8_t> changed(data, data + size);
  for (uint32_t n = 1 + random.below(3); n; --n)
    if (!Mutator(changed, random).damage()) return LLVMFuzzerMutate(data, size, max_size);
  if (changed.size() > max_size) return size;
  memcpy(data, changed.data(), changed.size());
  return changed.size();
}

}  // namespace flatbuffers
