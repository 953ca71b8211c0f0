// Constants from the bytes, or the places and values, that a file has of them. Bytes may be in a
// file of their own beside it.
#include "core/loader.h"

namespace ortolan {

namespace {
constexpr char kExternalSuffix[] = ".data";
constexpr size_t kMaxPath = 4096;
// A few bytes of a sparse tensor can claim any size; the format's files end here.
constexpr size_t kMaxDenseBytes = 0x7fffffff;
}  // namespace

Status Model::external(platform::Mapping* mapping) {
  if (!external_.data) {
    if (!platform::kHasFiles || !path_.size)
      return fail(error, Status::kInvalidArgument,
                  "the weights are in another file: open the model by its path, not its bytes");
    char path[kMaxPath + sizeof(kExternalSuffix)];
    if (path_.size > kMaxPath)
      return fail(error, Status::kInvalidArgument, "the path of the model is too long");
    copy(path, path_.data, path_.size);
    copy(path + path_.size, kExternalSuffix, sizeof(kExternalSuffix));
    int reason = 0;
    if (!platform::map_file(path, &external_, &reason))
      return fail(error, Status::kNoSuchFile, "cannot read the weights \"%\" (system error %)",
                  from_c(path), reason);
    ORTOLAN_TRY(count_file(external_.size));
  }
  *mapping = external_;
  return Status::kOk;
}

// Takes elements as they are stored; of a type and shape that are set. They stay where they are,
// unless they are too little aligned for their size.
Status Loader::take_bytes(String what, TensorView* tensor, const uint8_t* data, size_t size) {
  size_t element = element_size(tensor->type), bytes;
  if (!checked_bytes(tensor->shape, element, &bytes))
    return fail(error_, Status::kInvalidFormat,
                "tensor \"%\": its dimensions are negative or too large", what);
  const uint8_t bits = schema::kElementBits[static_cast<uint8_t>(tensor->type)];
  const size_t count = bytes;
  if (kHasPacked && bits < 8) bytes = count / 8 * bits + (count % 8 * bits + 7) / 8;
  if (size != bytes)
    return fail(error_, Status::kInvalidFormat,
                "tensor \"%\": its dimensions need % bytes, the file has %", what, bytes, size);
  if (bits < 8)
    return kHasPacked ? unpack(data, bits, count, tensor)
                      : fail(error_, Status::kNotImplemented,
                             "tensor \"%\": this build has no elements of a few bits", what);
  size_t alignment = min<size_t>(element, 8);
  if (!data || reinterpret_cast<uintptr_t>(data) % alignment != 0) {
    void* moved = model_.zone.allocate_raw(bytes);
    if (!moved) return out_of_memory();
    if (bytes) copy(moved, data, bytes);
    data = static_cast<const uint8_t*>(moved);
  }
  if (tensor->type == DataType::kBool && !are_bools(data, bytes))
    return fail(error_, Status::kInvalidFormat, "tensor \"%\": a byte of it is no bool", what);
  tensor->data = data;
  return Status::kOk;
}

// Elements of a few bits, the first in the lowest, get a byte each.
Status Loader::unpack(const uint8_t* data, uint8_t bits, size_t count, TensorView* tensor) {
  Span<uint8_t> bytes;
  ORTOLAN_TRY(make_array(max<size_t>(count, 1), &bytes));
  const size_t in_byte = 8 / bits;
  for (size_t i = 0; i < count; ++i)
    bytes[i] = static_cast<uint8_t>(data[i / in_byte] >> i % in_byte * bits & ((1 << bits) - 1));
  tensor->data = bytes.data;
  return Status::kOk;
}

Status Loader::too_many_dimensions(String what, size_t rank) {
  return fail(error_, Status::kNotImplemented,
              "tensor \"%\" has % dimensions; at most 8 are supported", what, rank);
}

// Fills a tensor, whose shape is set, with zeros and the values at their places.
Status Loader::densify(String what, const TensorView& values, const TensorView& indices,
                       TensorView* tensor) {
  if constexpr (!kHasSparse)
    return fail(error_, Status::kNotImplemented,
                "tensor \"%\" is sparse: take this word out of #ortolan:without in the config of "
                "the build",
                what);
  if (values.type == DataType::kString)
    return fail(error_, Status::kInvalidFormat, "sparse tensor \"%\": it has strings", what);
  tensor->type = values.type;
  size_t element = element_size(values.type), bytes;
  if (!checked_bytes(tensor->shape, element, &bytes))
    return fail(error_, Status::kInvalidFormat,
                "sparse tensor \"%\": its dimensions are negative or too large", what);
  if (bytes > kMaxDenseBytes || bytes > model_.options.max_tensor_bytes)
    return fail(error_, Status::kLimitExceeded, "sparse tensor \"%\" takes % bytes as a dense one",
                what, bytes);
  size_t count = values.shape.count();
  Span<size_t> places;
  ORTOLAN_TRY(read_places(indices, what, count, tensor->shape, &places));
  auto* dense = static_cast<uint8_t*>(model_.zone.allocate(max<size_t>(bytes, 1), kAlignment));
  if (!dense) return out_of_memory();
  fill_zero(dense, bytes);
  const auto* from = static_cast<const uint8_t*>(values.data);
  for (size_t i = 0; i < count; ++i) copy(dense + places[i] * element, from + i * element, element);
  tensor->data = dense;
  return Status::kOk;
}

// Where each value goes: from one flat index per value, or one index per dimension.
Status Loader::read_places(const TensorView& indices, String what, size_t values,
                           const Shape& shape, Span<size_t>* places) {
  auto wrong = [&](String why) {
    return fail(error_, Status::kInvalidFormat, "sparse tensor \"%\": %", what, why);
  };
  size_t width = element_size(indices.type);
  bool is_signed = indices.type == DataType::kInt64 || indices.type == DataType::kInt32 ||
                   indices.type == DataType::kInt16 || indices.type == DataType::kInt8;
  if (!is_signed) return wrong("its indices are no signed integers");
  bool is_flat = indices.shape.rank == 1;
  size_t parts = is_flat ? 1 : shape.rank;
  bool fits = is_flat ? indices.shape.count() == values
                      : indices.shape.rank == 2 && indices.shape.count() == values * parts &&
                            indices.shape.dims[1] == static_cast<int64_t>(parts);
  if (!fits) return wrong("it has not one index per value");
  ORTOLAN_TRY(make_array(max<size_t>(values, 1), places));
  const auto* at = static_cast<const uint8_t*>(indices.data);
  for (size_t i = 0; i < values; ++i) {
    size_t place = 0;
    for (size_t k = 0; k < parts; ++k, at += width) {
      int64_t index = width == 8   ? read<int64_t>(at)
                      : width == 4 ? read<int32_t>(at)
                      : width == 2 ? read<int16_t>(at)
                                   : static_cast<int8_t>(*at);
      int64_t end = is_flat ? static_cast<int64_t>(shape.count()) : shape.dims[k];
      if (index < 0 || index >= end) return wrong("an index is outside its dimensions");
      place = is_flat ? static_cast<size_t>(index)
                      : place * static_cast<size_t>(end) + static_cast<size_t>(index);
    }
    (*places)[i] = place;
  }
  return Status::kOk;
}

}  // namespace ortolan
