// Sequences and optionals: their items are blocks that are counted, not copied. And ZipMap.
#include "kernels/strided.h"

namespace ortolan::portable {

// Identity of a container: the loader puts it in the place of Identity.
struct Share {
  static Status run(Context& c) {
    Item item;
    ORTOLAN_TRY(c.as_item(0, &item));
    c.give(0, item);
    return Status::kOk;
  }
};

struct SequenceConstruct {
  static Status run(Context& c) {
    Item* items;
    ORTOLAN_TRY(c.make_container(0, c.input_count(), &items));
    for (size_t i = 0; i < c.input_count(); ++i) ORTOLAN_TRY(c.as_item(i, &items[i]));
    return Status::kOk;
  }
};

struct SequenceEmpty {
  static Status run(Context& c) {
    Item* items;
    return c.make_container(0, 0, &items);
  }
};

struct SequenceLength {
  static Status infer(Context& c) { return c.set_output(0, Shape()); }
  static Status run(Context& c) {
    *c.output_data<Loose<int64_t>>(0) = static_cast<int64_t>(c.items(0).size);
    return Status::kOk;
  }
};

// The position in input `i`, `fallback` without one; counted from the end when negative, and less
// than `end`.
static Status position(Context& c, size_t i, size_t fallback, size_t end, size_t* at) {
  *at = fallback;
  if (!c.has_input(i)) return Status::kOk;
  int64_t value;
  size_t count;
  if (!c.input_ints(i, &value, 1, &count) || count != 1)
    return c.invalid("the position must be one number");
  const int64_t size = static_cast<int64_t>(c.items(0).size), limit = static_cast<int64_t>(end);
  const int64_t from_start = value < 0 ? value + size : value;
  if (from_start < 0 || from_start >= limit)
    return c.invalid("position % is outside a sequence of % tensors", value, size);
  *at = static_cast<size_t>(from_start);
  return Status::kOk;
}

struct SequenceAt {
  static Status run(Context& c) {
    Span<const Item> items = c.items(0);
    size_t at;
    ORTOLAN_TRY(position(c, 1, 0, items.size, &at));
    Context::retain(items[at]);
    c.give(0, items[at]);
    return Status::kOk;
  }
};

struct SequenceErase {
  static Status run(Context& c) {
    Span<const Item> items = c.items(0);
    if (items.size == 0) return c.invalid("the sequence is empty");
    size_t at;
    ORTOLAN_TRY(position(c, 1, items.size - 1, items.size, &at));
    Item* to;
    ORTOLAN_TRY(c.make_container(0, items.size - 1, &to));
    for (size_t i = 0; i < items.size; ++i) {
      if (i == at) continue;
      Context::retain(items[i]);
      *to++ = items[i];
    }
    return Status::kOk;
  }
};

struct SequenceInsert {
  static Status run(Context& c) {
    Span<const Item> items = c.items(0);
    size_t at;
    ORTOLAN_TRY(position(c, 2, items.size, items.size + 1, &at));
    Item* to;
    ORTOLAN_TRY(c.make_container(0, items.size + 1, &to));
    for (size_t i = 0; i < items.size; ++i) {
      Context::retain(items[i]);
      to[i + (i >= at)] = items[i];
    }
    return c.as_item(1, &to[at]);
  }
};

struct SplitToSequence {
  static Status run(Context& c) {
    const Shape& shape = c.input_shape(0);
    int64_t axis = c.attribute_int("axis", 0);
    ORTOLAN_TRY(resolve_axis(c, &axis, shape.rank));
    const uint32_t at = static_cast<uint32_t>(axis);
    const int64_t length = shape[at];
    const bool is_given = c.has_input(1), is_list = is_given && c.input_shape(1).rank == 1;
    const bool drops = !is_given && c.attribute_int("keepdims", 1) == 0;
    int64_t step = 1;
    size_t parts = 0;
    if (is_list) {
      parts = c.input_shape(1).count();
    } else {
      if (is_given && c.input_shape(1).count() != 1)
        return c.invalid("split has shape %: neither a list nor a number", c.input_shape(1).span());
      if (is_given) step = part(c, 0);
      if (step < 1) return c.invalid("the size of a part is %", step);
      parts = static_cast<size_t>(length / step + (length % step != 0));
    }
    int64_t sum = 0;
    for (size_t i = 0; is_list && i < parts; ++i) {
      const int64_t size = part(c, i);
      if (size < 0 || size > length - sum)
        return c.invalid("the parts are negative or longer than the axis, which has %", length);
      sum += size;
    }
    if (is_list && sum != length)
      return c.invalid("the parts make % of an axis that has %", sum, length);
    Item* items;
    ORTOLAN_TRY(c.make_container(0, parts, &items));
    int64_t begin = 0;
    for (size_t i = 0; i < parts; ++i) {
      const int64_t size = is_list ? part(c, i) : min(step, length - begin);
      ORTOLAN_TRY(cut(c, at, begin, size, drops, &items[i]));
      begin += size;
    }
    return Status::kOk;
  }

 private:
  static int64_t part(Context& c, size_t i) {
    if (c.input_type(1) == DataType::kInt32) return c.input_data<Loose<int32_t>>(1)[i];
    return c.input_data<Loose<int64_t>>(1)[i];
  }
  static Status cut(Context& c, uint32_t axis, int64_t begin, int64_t size, bool drops,
                    Item* item) {
    const Shape& from = c.input_shape(0);
    Shape shape;
    for (uint32_t d = 0; d < from.rank; ++d)
      if (d != axis || !drops) shape.append(d == axis ? size : from[d]);
    ORTOLAN_TRY(c.make_item(c.input_type(0), shape, item));
    const size_t inner = from.product(axis + 1, from.rank) * element_size(c.input_type(0));
    const size_t row = inner * static_cast<size_t>(size), rows = from.product(0, axis);
    const size_t stride = inner * static_cast<size_t>(from[axis]);
    const char* source = c.input_data<char>(0) + inner * static_cast<size_t>(begin);
    for (size_t r = 0; row && r < rows; ++r)
      copy(static_cast<char*>(item->block) + r * row, source + r * stride, row);
    return Status::kOk;
  }
};

struct ConcatFromSequence {
  static Status run(Context& c) {
    Span<const Item> items = c.items(0);
    if (items.size == 0) return c.invalid("the sequence is empty");
    const bool is_new = c.attribute_int("new_axis", 0) != 0;
    Shape shape = items[0].shape;
    int64_t axis = c.attribute_int("axis", 0);
    ORTOLAN_TRY(resolve_axis(c, &axis, shape.rank + is_new));
    const uint32_t at = static_cast<uint32_t>(axis);
    if (is_new && shape.rank == kMaxRank)
      return c.invalid("the result has more than % dimensions", kMaxRank);
    int64_t length = 0;
    for (size_t i = 0; i < items.size; ++i) {
      const Shape& part = items[i].shape;
      bool fits = part.rank == shape.rank;
      for (uint32_t d = 0; fits && d < part.rank; ++d)
        fits = part[d] == shape[d] || (d == at && !is_new);
      if (!fits)
        return c.invalid("tensors of shapes % and % cannot be joined on axis %", shape.span(),
                         part.span(), axis);
      if (__builtin_add_overflow(length, is_new ? 1 : part[at], &length))
        return c.fail(Status::kLimitExceeded, "the result is too long");
    }
    Shape result;
    for (uint32_t d = 0; d < shape.rank + is_new; ++d)
      result.append(d == at ? length : shape[d - (is_new && d > at)]);
    ORTOLAN_TRY(c.allocate_output(0, result));
    const size_t element = element_size(c.output_type(0));
    const size_t rows = result.product(0, at), inner = result.product(at + 1, result.rank);
    const size_t stride = inner * static_cast<size_t>(length) * element;
    char* to = c.output_data<char>(0);
    for (const Item& item : items) {
      const size_t row = inner * (is_new ? 1 : static_cast<size_t>(item.shape[at])) * element;
      for (size_t r = 0; row && r < rows; ++r)
        copy(to + r * stride, static_cast<const char*>(item.block) + r * row, row);
      to += row;
    }
    return Status::kOk;
  }
};

struct Optional {
  static Status run(Context& c) {
    Item* item;
    const bool has = c.has_input(0);
    ORTOLAN_TRY(c.make_container(0, has, &item));
    return has ? c.as_item(0, item) : Status::kOk;
  }
};

static bool is_optional(Context& c) {
  return c.input(0).full_type().kind() == ValueKind::kOptional;
}

struct OptionalHasElement {
  static Status infer(Context& c) { return c.set_output(0, Shape()); }
  static Status run(Context& c) {
    *c.output_data<bool>(0) = c.has_input(0) && (!is_optional(c) || c.items(0).size == 1);
    return Status::kOk;
  }
};

struct OptionalGetElement {
  static Status run(Context& c) {
    Item item;
    if (!is_optional(c)) {
      ORTOLAN_TRY(c.as_item(0, &item));
    } else {
      if (c.items(0).size == 0) return c.invalid("the optional is empty");
      item = c.items(0)[0];
      Context::retain(item);
    }
    c.give(0, item);
    return Status::kOk;
  }
};

// A row of scores becomes a map from labels to scores.
struct ZipMap {
  static Status run(Context& c) {
    const Attribute* texts = c.attribute("classlabels_strings");
    const bool is_text = texts && texts->strings.size;
    const Span<const int64_t> numbers = c.attribute_ints("classlabels_int64s");
    const size_t labels = is_text ? texts->strings.size : numbers.size;
    const Shape& shape = c.input_shape(0);
    const size_t columns = shape.rank ? static_cast<size_t>(shape[shape.rank - 1]) : 1;
    const size_t rows = shape.rank > 1 ? static_cast<size_t>(shape[0]) : 1;
    if (shape.rank > 2 || columns != labels)
      return c.invalid("the input has shape %, but there are % labels", shape.span(), labels);
    Item* maps;
    ORTOLAN_TRY(c.make_container(0, rows, &maps));
    Shape line;
    line.append(static_cast<int64_t>(labels));
    for (size_t r = 0; r < rows; ++r) {
      Item* pair;
      ORTOLAN_TRY(c.make_map(&maps[r], &pair));
      if (r == 0) {
        ORTOLAN_TRY(c.make_item(is_text ? DataType::kString : DataType::kInt64, line, &pair[0]));
        for (size_t k = 0; is_text && k < labels; ++k) {
          static_cast<Text*>(pair[0].block)[k] = c.make_text(texts->strings[k]);
          if (texts->strings[k].size && !static_cast<Text*>(pair[0].block)[k].address)
            return c.out_of_memory();
        }
        if (!is_text) copy(pair[0].block, numbers.data, labels * sizeof(int64_t));
      } else {
        pair[0] = static_cast<Container*>(maps[0].block)->items()[0];
        Context::retain(pair[0]);
      }
      ORTOLAN_TRY(c.make_item(DataType::kFloat, line, &pair[1]));
      copy(pair[1].block, c.input_data<float>(0) + r * labels, labels * sizeof(float));
    }
    return Status::kOk;
  }
};

}  // namespace ortolan::portable

#include "sequence.inc"
