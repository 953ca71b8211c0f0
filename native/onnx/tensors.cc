// Constants: bytes that stay where they are, numbers in their protobuf forms, texts, sparse ones,
// and those in files of their own.
#include "onnx/reader.h"

namespace ortolan::onnx {

namespace {

constexpr size_t kMaxPath = 4096, kMaxFiles = 16384;

// The field with the elements of a type where they are no raw bytes.
uint32_t data_field(DataType type) {
  switch (type) {
    case DataType::kFloat:
    case DataType::kComplex64:
      return tensor::kFloatData;
    case DataType::kDouble:
    case DataType::kComplex128:
      return tensor::kDoubleData;
    case DataType::kInt64:
      return tensor::kInt64Data;
    case DataType::kUint32:
    case DataType::kUint64:
      return tensor::kUint64Data;
    default:
      return tensor::kInt32Data;
  }
}

bool parse(String text, uint64_t* number) {
  *number = 0;
  for (size_t i = 0; i < text.size; ++i) {
    if (text.data[i] < '0' || text.data[i] > '9') return false;
    *number = *number * 10 + static_cast<uint64_t>(text.data[i] - '0');
  }
  return text.size > 0 && text.size < 20;
}

// Whether a path names something inside the folder that it starts from, links apart.
bool stays_inside(String path) {
  size_t begin = 0;
  for (size_t i = 0; i <= path.size; ++i) {
    const char c = i < path.size ? path.data[i] : '/';
    if (c == 0 || c == '\\' || c == ':') return false;
    if (c != '/') continue;
    String part(path.data + begin, i - begin);
    if (part == String("..") || (i == 0 && path.size)) return false;
    begin = i + 1;
  }
  return path.size > 0;
}

size_t folder_size(String path) {
  size_t n = path.size;
  while (n && path.data[n - 1] != '/' && path.data[n - 1] != '\\') --n;
  return n;
}

}  // namespace

Status OnnxReader::read_dims(const Message& message, uint32_t field, String what, Shape* shape) {
  size_t rank = 0;
  uint64_t size;
  *shape = Shape();
  for (Numbers numbers(message, field); numbers.next(&size); ++rank)
    if (rank < kMaxRank) shape->append(static_cast<int64_t>(size));
  return rank > kMaxRank ? too_many_dimensions(what, rank) : Status::kOk;
}

Status OnnxReader::read_tensor(const Message& source, String what, TensorView* view) {
  const uint64_t type = source.number(tensor::kDataType);
  ORTOLAN_TRY(read_dims(source, tensor::kDims, what, &view->shape));
  if (type == 0 || type >= kDataTypes)
    return fail(error_, Status::kInvalidFormat, "tensor \"%\": its element type % is not supported",
                what, static_cast<int64_t>(type));
  view->type = static_cast<DataType>(type);
  const uint64_t location = source.number(tensor::kDataLocation);
  if (location > 1)
    return fail(error_, Status::kInvalidFormat, "tensor \"%\": its data are in no known place",
                what);
  if (location == 1) return read_external(source, what, view);
  if (view->type == DataType::kString) return read_texts(source, tensor::kStringData, what, view);
  Bytes raw;
  for (Fields each = source.each(tensor::kRawData); each.next();) raw = each.field().bytes;
  if (raw.size) return take_bytes(what, view, raw.data, raw.size);
  const uint32_t field = data_field(view->type);
  if (field == tensor::kFloatData) return read_fixed(source, field, 4, what, view);
  if (field == tensor::kDoubleData) return read_fixed(source, field, 8, what, view);
  return read_numbers(source, field, what, view);
}

// Packed numbers are bytes as they are wanted.
Status OnnxReader::read_fixed(const Message& source, uint32_t field, size_t width, String what,
                              TensorView* view) {
  size_t bytes = 0, parts = 0;
  Bytes last;
  for (Fields each = source.each(field); each.next(); ++parts) {
    const bool packed = each.field().wire == Wire::kBytes;
    last = packed ? each.field().bytes : Bytes();
    bytes += packed ? last.size : width;
  }
  if (parts == 0 || (parts == 1 && bytes == last.size))
    return take_bytes(what, view, last.data, last.size);
  auto* all = static_cast<uint8_t*>(model_.zone.allocate_raw(bytes));
  if (!all) return out_of_memory();
  uint8_t* to = all;
  for (Fields each = source.each(field); each.next();) {
    const Field& f = each.field();
    const bool packed = f.wire == Wire::kBytes;
    const size_t size = packed ? f.bytes.size : width;
    if (size) copy(to, packed ? f.bytes.data : reinterpret_cast<const uint8_t*>(&f.value), size);
    to += size;
  }
  return take_bytes(what, view, all, bytes);
}

// A number for each element, or for as many elements as fill a byte.
Status OnnxReader::read_numbers(const Message& source, uint32_t field, String what,
                                TensorView* view) {
  size_t count = 0;
  uint64_t value;
  for (Numbers numbers(source, field); numbers.next(&value);) ++count;
  const size_t width = element_size(view->type);
  auto* bytes = static_cast<uint8_t*>(model_.zone.allocate_raw(count * width));
  if (!bytes) return out_of_memory();
  uint8_t* to = bytes;
  for (Numbers numbers(source, field); numbers.next(&value); to += width) copy(to, &value, width);
  return take_bytes(what, view, bytes, count * width);
}

// Strings with their lengths in front, as kernels want them.
Status OnnxReader::read_texts(const Message& source, uint32_t field, String what,
                              TensorView* view) {
  size_t count = 0, bytes = 0, wanted;
  for (Fields each = source.each(field); each.next(); ++count) bytes += each.text().size;
  if (!checked_bytes(view->shape, sizeof(Text), &wanted) || wanted / sizeof(Text) != count)
    return fail(error_, Status::kInvalidFormat,
                "tensor \"%\": its dimensions do not fit the % strings that the file has", what,
                count);
  Span<Text> handles = model_.zone.array<Text>(max<size_t>(count, 1));
  auto* to = static_cast<char*>(model_.zone.allocate_raw(bytes + 4 * count));
  if (handles.size < count || !to) return out_of_memory();
  size_t i = 0;
  for (Fields each = source.each(field); each.next(); ++i) {
    String text = each.text();
    if (text.size == 0) continue;
    if (text.size > INT32_MAX)
      return fail(error_, Status::kLimitExceeded, "tensor \"%\": a string exceeds 2 GB", what);
    const uint32_t size = static_cast<uint32_t>(text.size);
    handles[i] = Text::at(to);
    copy(to, &size, sizeof(size));
    copy(to + sizeof(size), text.data, text.size);
    to += sizeof(size) + text.size;
  }
  view->data = handles.data;
  return Status::kOk;
}

Status OnnxReader::read_sparse(const Message& source, String what, TensorView* view) {
  TensorView values, indices;
  ORTOLAN_TRY(read_tensor(source.message(sparse::kValues), what, &values));
  ORTOLAN_TRY(read_tensor(source.message(sparse::kIndices), what, &indices));
  ORTOLAN_TRY(read_dims(source, sparse::kDims, what, &view->shape));
  return densify(what, values, indices, view);
}

Status OnnxReader::read_external(const Message& source, String what, TensorView* view) {
  String location, offset_text = "0", length_text;
  for (Fields each = source.each(tensor::kExternalData); each.next();) {
    String key = each.message().text(entry::kKey), value = each.message().text(entry::kValue);
    if (key == String("location")) location = value;
    if (key == String("offset") && value.size) offset_text = value;
    if (key == String("length")) length_text = value;
  }
  if (view->type == DataType::kString)
    return fail(error_, Status::kInvalidFormat, "tensor \"%\": strings cannot be external data",
                what);
  uint64_t offset, length = 0;
  if (!parse(offset_text, &offset) || (length_text.size && !parse(length_text, &length)))
    return fail(error_, Status::kInvalidGraph,
                "tensor \"%\": its external data have an offset or length that is no number", what);
  size_t bytes;
  if (!checked_bytes(view->shape, element_size(view->type), &bytes))
    return fail(error_, Status::kInvalidFormat,
                "tensor \"%\": its dimensions are negative or too large", what);
  const uint8_t bits = schema::kElementBits[static_cast<uint8_t>(view->type)];
  if (bits < 8) bytes = bytes / 8 * bits + (bytes % 8 * bits + 7) / 8;
  if (!length_text.size) length = bytes;
  platform::Mapping file;
  ORTOLAN_TRY(map_external(what, location, &file));
  if (offset > file.size || length > file.size - offset)
    return fail(error_, Status::kInvalidGraph,
                "tensor \"%\": its external data reach beyond the end of \"%\", which has % bytes",
                what, location, file.size);
  // One file's bytes may be the data of many tensors. What must be copied may not be many times
  // what is there.
  const uint8_t* data = file.data ? file.data + offset : nullptr;
  const size_t alignment = min<size_t>(element_size(view->type), 8);
  if (bits < 8 || reinterpret_cast<uintptr_t>(data) % alignment != 0) moved_ += length;
  constexpr uint64_t kTimes = 4, kFree = 1 << 20;
  if (moved_ > kFree + kTimes * mapped_)
    return fail(error_, Status::kLimitExceeded,
                "tensor \"%\": too much of the external data is used again and again", what);
  return take_bytes(what, view, data, static_cast<size_t>(length));
}

// A model may come from anywhere: it must not make us read files that are not its own.
Status OnnxReader::map_external(String what, String location, platform::Mapping* mapping) {
  for (size_t i = files_.size(); i-- > 0;)
    if (files_[i].location == location) {
      *mapping = files_[i].mapping;
      return Status::kOk;
    }
  String path = model_.path();
  if (!path.size)
    return fail(error_, Status::kInvalidArgument,
                "tensor \"%\": its data are in another file: open the model by its path, not its "
                "bytes",
                what);
  if (!stays_inside(location))
    return fail(error_, Status::kInvalidGraph,
                "tensor \"%\": its external data (\"%\") lie outside the model's folder: put them "
                "beside the model",
                what, location);
  char folder[kMaxPath + 1], name[kMaxPath + 1];
  const size_t size = folder_size(path);
  if (size > kMaxPath || location.size > kMaxPath || files_.size() == kMaxFiles)
    return fail(error_, Status::kLimitExceeded,
                "tensor \"%\": its external data have too long a path, or are in too many files",
                what);
  if (size) copy(folder, path.data, size);
  copy(name, location.data, location.size);
  folder[size] = name[location.size] = 0;
  int reason = 0;
  if (!platform::map_file_inside(folder, name, mapping, &reason)) {
    if (reason == platform::kIsLink)
      return fail(error_, Status::kNotImplemented,
                  "tensor \"%\": its external data (\"%\") are behind a symbolic link", what,
                  location);
    return fail(error_, Status::kNoSuchFile,
                "tensor \"%\": cannot read its external data \"%\" (system error %)", what,
                location, reason);
  }
  mapped_ += mapping->size;
  if (!model_.keep(*mapping)) {
    platform::unmap_file(*mapping);
    return out_of_memory();
  }
  if (!files_.push({location, *mapping})) return out_of_memory();
  return model_.count_file(mapping->size);
}

}  // namespace ortolan::onnx
