// Categories: one-hot codes, labels for labels, and what becomes of maps.
#include "kernels/categories.h"
#include "core/decimal.h"

namespace ortolan::portable {

struct OneHotEncoder {
  static Status prepare(Context& c) {
    Categories* categories = c.make_state<Categories>();
    if (!categories) return c.out_of_memory();
    const bool is_text = c.input_type(0) == DataType::kString;
    categories->last_counts = true;
    const Span<const String> texts = attribute_texts(c, "cats_strings");
    return is_text ? categories->read(c, texts)
                   : categories->read(c, c.attribute_ints("cats_int64s"));
  }
  static Status infer(Context& c) {
    Shape shape = c.input_shape(0);
    const size_t count = c.state<Categories>().size();
    if (!count) return c.invalid("it has no categories of X's type");
    if (shape.rank == kMaxRank) return c.invalid("the result has more than % dimensions", kMaxRank);
    shape.append(static_cast<int64_t>(count));
    return c.set_output(0, shape);
  }
  static Status run(Context& c) {
    const Categories& categories = c.state<Categories>();
    const bool allows_others = c.attribute_int("zeros", 1) != 0;
    const Elements x(c, 0);
    float* y = c.output_data<float>(0);
    for (size_t i = 0, n = c.input_shape(0).count(); i < n; ++i, y += categories.size()) {
      for (size_t k = 0; k < categories.size(); ++k) y[k] = 0;
      // Numbers are cut off.
      const size_t found =
          x.is_text() ? categories.find(x.text(i)) : categories.find(whole(x.number(i)));
      if (found < categories.size())
        y[found] = 1;
      else if (!allows_others)
        return x.is_text() ? c.invalid("\"%\" is no category", x.text(i))
                           : c.invalid("% is no category", whole(x.number(i)));
    }
    return Status::kOk;
  }
};

// Keys to values. Version 1 and CategoryMapper: strings to numbers, and back.
struct LabelEncoder {
  struct State {
    Categories keys;
    const void* values = nullptr;  // of the output's type, then the default
  };

  static Status prepare(Context& c) {
    State* state = c.make_state<State>();
    if (!state) return c.out_of_memory();
    // By the version alone, which says what type the values have: none becomes a string's address.
    return c.since_version() < 2 ? read_pairs(c, state) : read_lists(c, state);
  }
  static Status infer(Context& c) { return c.set_output(0, c.input_shape(0)); }
  static Status run(Context& c) {
    const State& state = c.state<State>();
    const Elements x(c, 0);
    const size_t size = element_size(c.output_type(0));
    const char* values = static_cast<const char*>(state.values);
    char* y = c.output_data<char>(0);
    for (size_t i = 0, n = c.input_shape(0).count(); i < n; ++i)
      copy(y + i * size, values + x.find(state.keys, i) * size, size);
    return Status::kOk;
  }

 private:
  static bool is_encoder(const Context& c) { return !c.attribute("cats_strings"); }

  static Status read_pairs(Context& c, State* state) {
    const bool is_mapper = !is_encoder(c);
    const Span<const String> texts =
        attribute_texts(c, is_mapper ? String("cats_strings") : String("classes_strings"));
    Span<const int64_t> numbers = c.attribute_ints("cats_int64s");
    if (!is_mapper) {  // a class is its place
      auto* places = static_cast<int64_t*>(c.model_memory(max<size_t>(texts.size, 1) * 8));
      if (!places) return c.out_of_memory();
      for (size_t i = 0; i < texts.size; ++i) places[i] = static_cast<int64_t>(i);
      numbers = {places, texts.size};
    }
    if (numbers.size != texts.size)
      return c.invalid("% strings for % numbers", texts.size, numbers.size);
    if (c.input_type(0) == DataType::kString) {
      ORTOLAN_TRY(state->keys.read(c, texts));
      const int64_t other = c.attribute_int("default_int64", -1);
      return keep(c, numbers.data, numbers.size, &other, state);
    }
    ORTOLAN_TRY(state->keys.read(c, numbers));
    return keep_texts(c, texts, c.attribute_string("default_string", "_Unused"), state);
  }

  static Status read_lists(Context& c, State* state) {
    const Attribute* tensor = c.attribute("keys_tensor");
    const DataType type = c.input_type(0);
    if (tensor && tensor->kind == AttributeKind::kTensor) {
      if (tensor->tensor.type != type) return c.invalid("keys_tensor has another type than X");
      ORTOLAN_TRY(state->keys.read(c, tensor->tensor));
    } else if (type == DataType::kString) {
      ORTOLAN_TRY(state->keys.read(c, attribute_texts(c, "keys_strings")));
    } else if (type == DataType::kInt64) {
      ORTOLAN_TRY(state->keys.read(c, c.attribute_ints("keys_int64s")));
    } else {
      ORTOLAN_TRY(state->keys.read(c, attribute_floats(c, "keys_floats")));
    }
    return read_values(c, state);
  }

  static Status read_values(Context& c, State* state) {
    const DataType type = c.output_type(0);
    const Attribute* tensor = c.attribute("values_tensor");
    const Attribute* other = c.attribute("default_tensor");
    const bool is_tensor = tensor && tensor->kind == AttributeKind::kTensor;
    if (is_tensor && tensor->tensor.type != type)
      return c.invalid("values_tensor has another type than Y");
    const bool has_other = other && other->kind == AttributeKind::kTensor &&
                           other->tensor.type == type && other->tensor.shape.count() == 1;
    switch (type) {
      case DataType::kString: {
        if (!is_tensor)
          return keep_texts(c, attribute_texts(c, "values_strings"),
                            c.attribute_string("default_string", "_Unused"), state);
        const Text fallback = c.make_text(c.attribute_string("default_string", "_Unused"));
        return keep(c, tensor->tensor.data, tensor->tensor.shape.count(),
                    has_other ? other->tensor.data : &fallback, state);
      }
      case DataType::kInt64: {
        const int64_t fallback = c.attribute_int("default_int64", -1);
        const Span<const int64_t> list = c.attribute_ints("values_int64s");
        return keep(c, is_tensor ? tensor->tensor.data : list.data,
                    is_tensor ? tensor->tensor.shape.count() : list.size,
                    has_other ? other->tensor.data : &fallback, state);
      }
      default: {
        const float narrow = c.attribute_float("default_float", -0.0f);
        const double wide = narrow;
        const int16_t small = -1;
        const void* fallback = type == DataType::kFloat    ? static_cast<const void*>(&narrow)
                               : type == DataType::kDouble ? static_cast<const void*>(&wide)
                                                           : &small;
        const Span<const float> list = attribute_floats(c, "values_floats");
        return keep(c, is_tensor ? tensor->tensor.data : list.data,
                    is_tensor ? tensor->tensor.shape.count() : list.size,
                    has_other ? other->tensor.data : fallback, state);
      }
    }
  }

  static Status keep(Context& c, const void* values, size_t count, const void* other,
                     State* state) {
    if (count != state->keys.size())
      return c.invalid("% keys for % values", state->keys.size(), count);
    const size_t size = element_size(c.output_type(0));
    char* memory = static_cast<char*>(c.model_memory((count + 1) * size));
    if (!memory) return c.out_of_memory();
    if (count) copy(memory, values, count * size);
    copy(memory + count * size, other, size);
    state->values = memory;
    return Status::kOk;
  }
  static Status keep_texts(Context& c, Span<const String> texts, String other, State* state) {
    auto* made = static_cast<Text*>(c.model_memory((texts.size + 1) * sizeof(Text)));
    if (!made) return c.out_of_memory();
    for (size_t i = 0; i <= texts.size; ++i) {
      const String text = i < texts.size ? texts[i] : other;
      made[i] = c.make_text(text);
      if (text.size && !made[i].address) return c.out_of_memory();
    }
    return keep(c, made, texts.size, made + texts.size, state);
  }
};

// Whether input 0 is a map whose keys and values `Elements` can read.
static Status check_map(Context& c) {
  if (c.input(0).full_type().kind() != ValueKind::kMap) return c.invalid("input 0 is no map");
  const Item &keys = c.items(0)[0], &values = c.items(0)[1];
  constexpr uint32_t kKeys = type_bit(DataType::kString) | type_bit(DataType::kInt64);
  constexpr uint32_t kValues = kKeys | type_bit(DataType::kFloat) | type_bit(DataType::kDouble);
  const size_t given = keys.shape.count(), with = values.shape.count();
  if (!(kKeys & type_bit(keys.type.element)) || !(kValues & type_bit(values.type.element)))
    return c.invalid("maps from % to % are not supported", type_name(keys.type.element),
                     type_name(values.type.element));
  if (given != with) return c.invalid("the map has % keys for % values", given, with);
  return Status::kOk;
}

// The values of a map in the order of a vocabulary.
struct DictVectorizer {
  static Status run(Context& c) {
    ORTOLAN_TRY(check_map(c));
    const Item& keys = c.items(0)[0];
    const Item& values = c.items(0)[1];
    const Span<const String> texts = attribute_texts(c, "string_vocabulary");
    const Span<const int64_t> numbers = c.attribute_ints("int64_vocabulary");
    const bool is_text = keys.type.element == DataType::kString;
    const size_t count = is_text ? texts.size : numbers.size, given = keys.shape.count();
    const size_t size = element_size(c.output_type(0));
    const int64_t dims[] = {1, static_cast<int64_t>(count)};
    ORTOLAN_TRY(c.allocate_output(0, Shape::of({dims, 2})));
    char* y = c.output_data<char>(0);
    if (count) fill_zero(y, count * size);
    const Elements key(keys);
    for (size_t k = 0; k < count; ++k)
      for (size_t i = 0; i < given; ++i)
        if (is_text ? key.text(i) == texts[k] : key.integer(i) == numbers[k])
          copy(y + k * size, static_cast<const char*>(values.block) + i * size, size);
    return Status::kOk;
  }
};

// The values of a map as a row: in the order of its keys, or each at the place that its key says.
struct CastMap {
  static Status run(Context& c) {
    ORTOLAN_TRY(check_map(c));
    const Item& keys = c.items(0)[0];
    const Item& values = c.items(0)[1];
    if (keys.type.element == DataType::kString) return c.invalid("the keys of the map are texts");
    const String form = c.attribute_string("map_form", "DENSE");
    const bool is_sparse = form == String("SPARSE");
    if (!is_sparse && !(form == String("DENSE"))) return c.invalid("map_form % is unknown", form);
    const size_t given = keys.shape.count();
    const int64_t most = c.attribute_int("max_map", 1);
    if (is_sparse && (most < 1 || most > INT32_MAX)) return c.invalid("max_map is %", most);
    const size_t count = is_sparse ? static_cast<size_t>(most) : given;
    const int64_t dims[] = {1, static_cast<int64_t>(count)};
    ORTOLAN_TRY(c.allocate_output(0, Shape::of({dims, 2})));
    const size_t size = element_size(c.output_type(0));
    if (count) fill_zero(c.output_data<char>(0), count * size);
    const Elements key(keys), value(values);
    for (size_t k = 0; k < given; ++k) {
      // Ascending keys, whatever the order of the map.
      size_t place = 0;
      for (size_t i = 0; i < given; ++i) place += key.integer(i) < key.integer(k);
      if (is_sparse) place = static_cast<size_t>(key.integer(k));
      if (place >= count) {
        if (key.integer(k) < 0 || !is_sparse) return c.invalid("key % is negative", key.integer(k));
        continue;
      }
      ORTOLAN_TRY(put(c, value, k, place));
    }
    return Status::kOk;
  }

 private:
  static Status put(Context& c, const Elements& value, size_t k, size_t place) {
    switch (c.output_type(0)) {
      case DataType::kFloat:
        if (!value.is_text())
          c.output_data<float>(0)[place] = static_cast<float>(value.number(k));
        else if (!decimal::read_float(value.text(k), c.output_data<float>(0) + place))
          return c.invalid("\"%\" is no number", value.text(k));
        return Status::kOk;
      case DataType::kInt64:
        if (!value.is_text())
          c.output_data<int64_t>(0)[place] = value.whole(k);
        else if (!decimal::read_int(value.text(k), c.output_data<int64_t>(0) + place))
          return c.invalid("\"%\" is no integer", value.text(k));
        return Status::kOk;
      default: {
        char text[decimal::kMaxText];
        const String written =
            value.is_text()
                ? value.text(k)
                : String(text, decimal::write_float(text, static_cast<float>(value.number(k))));
        const Text made = c.make_text(written);
        if (written.size && !made.address) return c.out_of_memory();
        c.output_data<Text>(0)[place] = made;
        return Status::kOk;
      }
    }
  }
};

}  // namespace ortolan::portable

#include "categories.inc"
