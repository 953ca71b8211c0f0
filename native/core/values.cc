// Strings and containers: how they enter and leave a run, and what kernels do with them.
#include "core/run.h"
#include "ortolan_features.h"

namespace ortolan {

namespace {

// A string tensor of the caller: `count` + 1 offsets from the start of the blob, then the bytes.
bool is_blob(const void* blob, size_t bytes, size_t count) {
  if (bytes < sizeof(uint32_t) || (bytes - sizeof(uint32_t)) / sizeof(uint32_t) < count)
    return false;
  auto* offsets = static_cast<const uint32_t*>(blob);
  for (size_t i = 0; i < count; ++i)
    if (offsets[i] > offsets[i + 1]) return false;
  return offsets[0] >= (count + 1) * sizeof(uint32_t) && offsets[count] <= bytes;
}

// Elements may share a text: their sum is not bounded by memory, nor by what a size can be.
uint64_t blob_bytes(const Text* texts, size_t count) {
  uint64_t bytes = (uint64_t{count} + 1) * sizeof(uint32_t);
  for (size_t i = 0; i < count; ++i) bytes += texts[i].size();
  return bytes;
}

void write_blob(void* blob, const Text* texts, size_t count) {
  auto* offsets = static_cast<uint32_t*>(blob);
  uint32_t at = static_cast<uint32_t>((count + 1) * sizeof(uint32_t));
  for (size_t i = 0; i < count; ++i) {
    offsets[i] = at;
    uint32_t n = static_cast<uint32_t>(texts[i].size());
    if (n) copy(static_cast<char*>(blob) + at, texts[i].data(), n);
    at += n;
  }
  offsets[count] = at;
}

char* new_text(Zone& zone, size_t bytes, Text* text) {
  auto n = static_cast<uint32_t>(bytes);
  if (bytes > INT32_MAX) return nullptr;  // errors hold the size of a text in 31 bits
  char* block = static_cast<char*>(zone.allocate(sizeof(n) + n, alignof(uint32_t)));
  if (!block) return nullptr;
  copy(block, &n, sizeof(n));
  *text = Text::at(block);
  return block + sizeof(n);
}

Text copy_text(Zone& zone, String text) {
  Text made;
  if (text.size == 0) return made;
  if (char* to = new_text(zone, text.size, &made)) copy(to, text.data, text.size);
  return made;
}

}  // namespace

OutputValue* OutputValue::make(const Allocator& allocator, ValueType type, const Shape& shape,
                               size_t bytes) {
  size_t total = round_up(sizeof(OutputValue), kAlignment) + max<size_t>(bytes, 1);
  auto* value = total > bytes ? static_cast<OutputValue*>(allocator.get(total)) : nullptr;
  if (value) *value = {allocator, 1, total, bytes, shape, type};
  return value;
}

void OutputValue::release(OutputValue* value) {
  if (!value || __atomic_sub_fetch(&value->references, 1, __ATOMIC_ACQ_REL)) return;
  for (size_t i = 0; kHasContainers && i < value->item_count(); ++i) release(value->items()[i]);
  Allocator allocator = value->allocator;
  allocator.put(value, value->total);
}

Status Run::too_large_text() {
  return fail(error_, Status::kLimitExceeded, "a string tensor is larger than 4 GB");
}

// Handles for a string tensor of the caller, with the bytes copied.
Status Run::import_texts(const void* blob, size_t bytes, size_t count, String name,
                         void** handles) {
  if (!is_blob(blob, bytes, count))
    return fail(error_, Status::kInvalidArgument, "input \"%\" is no string tensor of % elements",
                name, count);
  Span<Text> texts = texts_.array<Text>(max<size_t>(count, 1));
  if (texts.size < count) return out_of_memory();
  auto* offsets = static_cast<const uint32_t*>(blob);
  for (size_t i = 0; i < count; ++i) {
    String text{static_cast<const char*>(blob) + offsets[i], offsets[i + 1] - offsets[i]};
    texts[i] = copy_text(texts_, text);
    if (text.size && !texts[i].address) return out_of_memory();
  }
  *handles = texts.data;
  return Status::kOk;
}

Status Run::import_value(const OutputValue& value, String name, Item* item) {
  item->type = value.type;
  item->shape = value.shape;
  if (kHasContainers && value.type.layers) {
    size_t count = value.item_count();
    Container* container = heap_.make_container(count);
    if (!container) return out_of_memory();
    item->block = container;
    for (size_t i = 0; i < count; ++i)
      ORTOLAN_TRY(import_value(*value.items()[i], name, &container->items()[i]));
    return Status::kOk;
  }
  size_t count = value.shape.count(), bytes = count * element_size(value.type.element);
  item->block = heap_.allocate(bytes);
  if (!item->block) return out_of_memory();
  const void* data = value.data();
  void* handles = nullptr;
  if (kHasTexts && value.type.element == DataType::kString) {
    ORTOLAN_TRY(import_texts(data, value.bytes, count, name, &handles));
    data = handles;
  }
  if (value.type.element == DataType::kBool && !are_bools(data, bytes))
    return fail(error_, Status::kInvalidArgument, "input \"%\" has a byte that is no bool", name);
  if (bytes) copy(item->block, data, bytes);
  return Status::kOk;
}

// A value of the caller's own with what a slot or an item holds.
Status Run::export_value(ValueType type, const Shape& shape, const void* data,
                         OutputValue** result) {
  auto make = [&](size_t bytes) {
    *result = make_value(type, shape, bytes);
    return *result ? Status::kOk : out_of_memory();
  };
  if (!kHasContainers || type.layers == 0) {
    size_t count = shape.count(), bytes = count * element_size(type.element);
    bool is_text = kHasTexts && type.element == DataType::kString;
    if (is_text) {
      const uint64_t all = blob_bytes(static_cast<const Text*>(data), count);
      if (all > UINT32_MAX) return too_large_text();
      bytes = static_cast<size_t>(all);
    }
    ORTOLAN_TRY(make(bytes));
    if (is_text)
      write_blob((*result)->data(), static_cast<const Text*>(data), count);
    else if (bytes)
      copy((*result)->data(), data, bytes);
    return Status::kOk;
  }
  auto* container = const_cast<Container*>(static_cast<const Container*>(data));
  ORTOLAN_TRY(make(container->count * sizeof(OutputValue*)));
  OutputValue* value = *result;
  for (size_t i = 0; i < container->count; ++i) value->items()[i] = nullptr;
  for (size_t i = 0; i < container->count; ++i) {
    const Item& item = container->items()[i];
    ORTOLAN_TRY(export_value(item.type, item.shape, item.block, &value->items()[i]));
  }
  return Status::kOk;
}

Text Context::make_text(String text) const { return copy_text(*texts_, text); }

char* Context::text_memory(size_t bytes, Text* text) const {
  *text = Text();
  return new_text(*texts_, bytes, text);
}

void Context::retain(const Item& item) { Heap::retain(item.block); }

Status Context::make_item(DataType type, const Shape& shape, Item* item) const {
  size_t bytes;
  if (!checked_bytes(shape, element_size(type), &bytes) || bytes > tensor_limit_)
    return fail(Status::kLimitExceeded,
                "a tensor of shape % is too large: the limit ortolan.max_tensor_bytes is %",
                shape.span(), tensor_limit_);
  item->type = {type, DataType::kUndefined, 0};
  item->shape = shape;
  item->block = run_->heap_.allocate(bytes);
  return item->block ? Status::kOk : out_of_memory();
}

Status Context::as_item(size_t i, Item* item) const {
  const Slot& slot = input(i);
  item->type = slot.full_type();
  item->shape = slot.shape;
  item->block = slot.layers || (slot.block && slot.block == slot.data) ? slot.data : nullptr;
  if (item->block) {
    Heap::retain(item->block);
    return Status::kOk;
  }
  ORTOLAN_TRY(make_item(slot.type, slot.shape, item));
  if (size_t bytes = slot.shape.count() * element_size(slot.type); bytes)
    copy(item->block, slot.data, bytes);
  return Status::kOk;
}

Status Context::make_container(size_t i, size_t count, Item** items) {
  Container* container = run_->heap_.make_container(count);
  if (!container) return out_of_memory();
  *items = container->items();
  Slot& slot = output(i);
  slot.data = slot.block = container;
  slot.state = Slot::kReady;
  return Status::kOk;
}

Status Context::make_map(Item* map, Item** pair) const {
  Container* container = run_->heap_.make_container(2);
  if (!container) return out_of_memory();
  map->type = output(0).full_type().inner();
  map->block = container;
  *pair = container->items();
  return Status::kOk;
}

void Context::give(size_t i, const Item& item) {
  Slot& slot = output(i);
  slot.data = slot.block = item.block;
  slot.shape = item.shape;
  slot.state = Slot::kReady;
}

}  // namespace ortolan
