// Output shapes that many operators share.
#include "core/context.h"

namespace ortolan::portable {

// Output 0 has the shape of input 0.
Status infer_same(Context& c) { return c.set_output(0, c.input_shape(0)); }

// Dimension i of `shape` when it has `rank` dimensions, the missing ones in front being 1.
static int64_t padded(const Shape& shape, uint32_t i, uint32_t rank) {
  const uint32_t missing = rank - shape.rank;
  return i < missing ? 1 : shape[i - missing];
}

// Output 0 has the shape that all present inputs broadcast to, as in numpy.
Status infer_broadcast(Context& c) {
  Shape out;
  for (size_t k = 0; k < c.input_count(); ++k) {
    if (!c.has_input(k)) continue;
    const Shape& in = c.input_shape(k);
    Shape wider;
    wider.rank = max(out.rank, in.rank);
    for (uint32_t i = 0; i < wider.rank; ++i) {
      const int64_t a = padded(out, i, wider.rank), b = padded(in, i, wider.rank);
      if (a != b && a != 1 && b != 1)
        return c.invalid("input % of shape % does not broadcast with %", k, in.span(), out.span());
      wider[i] = a == 1 ? b : a;
    }
    out = wider;
  }
  return c.set_output(0, out);
}

}  // namespace ortolan::portable
