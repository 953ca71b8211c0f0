// Constants that are not stored as plain bytes of the file: in a file of their own beside it, or as
// the places and values of what is not zero.
#include "core/loader.h"

namespace ortolan {

using schema::TensorTable;

namespace {
constexpr char kExternalSuffix[] = ".data";
constexpr size_t kMaxPath = 4096;
// A few bytes of a sparse tensor can claim any size; the format's files end here.
constexpr size_t kMaxDenseBytes = 0x7fffffff;
}  // namespace

Status Model::external(platform::Mapping* mapping) {
  if (!external_.data) {
    if (!path_.size)
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
  }
  *mapping = external_;
  return Status::kOk;
}

Status Loader::external_data(String what, int64_t offset, size_t bytes, const uint8_t** data) {
  platform::Mapping file;
  ORTOLAN_TRY(model_.external(&file));
  uint64_t begin = static_cast<uint64_t>(offset);
  if (begin > file.size || bytes > file.size - begin)
    return fail(error_, Status::kInvalidFormat,
                "tensor \"%\": its data end beyond the file of weights, which has % bytes", what,
                file.size);
  *data = file.data + begin;
  return Status::kOk;
}

Status Loader::read_sparse(FbTable table, String what, TensorView* tensor) {
  using schema::SparseTensorTable;
  TensorView values;
  ORTOLAN_TRY(read_tensor(table.table(SparseTensorTable::kValues), what, &values));
  size_t rank, bytes;
  const uint8_t* dims = table.vector(SparseTensorTable::kDims, &rank);
  auto wrong = [&](String why) {
    return fail(error_, Status::kInvalidFormat, "sparse tensor \"%\": %", what, why);
  };
  if (rank > kMaxRank)
    return fail(error_, Status::kNotImplemented,
                "tensor \"%\" has % dimensions; at most 8 are supported", what, rank);
  if (values.type == DataType::kString) return wrong("it has strings");
  tensor->type = values.type;
  tensor->shape = Shape();
  for (size_t i = 0; i < rank; ++i) tensor->shape.append(read<int64_t>(dims + 8 * i));
  size_t element = element_size(values.type);
  if (!checked_bytes(tensor->shape, element, &bytes))
    return wrong("its dimensions are negative or too large");
  if (bytes > kMaxDenseBytes || bytes > model_.options.max_tensor_bytes)
    return fail(error_, Status::kLimitExceeded, "sparse tensor \"%\" takes % bytes as a dense one",
                what, bytes);
  size_t count = values.shape.count();
  Span<size_t> places;
  ORTOLAN_TRY(
      read_places(table.table(SparseTensorTable::kIndices), what, count, tensor->shape, &places));
  auto* dense = static_cast<uint8_t*>(model_.zone.allocate(max<size_t>(bytes, 1), kAlignment));
  if (!dense) return out_of_memory();
  fill_zero(dense, bytes);
  const auto* from = static_cast<const uint8_t*>(values.data);
  for (size_t i = 0; i < count; ++i) copy(dense + places[i] * element, from + i * element, element);
  tensor->data = dense;
  return Status::kOk;
}

// Where each value goes: from one flat index per value, or one index per dimension.
Status Loader::read_places(FbTable table, String what, size_t values, const Shape& shape,
                           Span<size_t>* places) {
  TensorView indices;
  ORTOLAN_TRY(read_tensor(table, what, &indices));
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
  *places = model_.zone.array<size_t>(max<size_t>(values, 1));
  if (places->size < values) return out_of_memory();
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
