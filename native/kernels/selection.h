// Operators whose result is as long as the values say: NonZero, Compress, NonMaxSuppression.
#pragma once

#include "kernels/sorting.h"

namespace ortolan::portable {

struct NonZero {
  static Status infer(Context&) { return Status::kOk; }
  template <class Word>
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    const DataType type = c.input_type(0);
    const bool is_real = type == DataType::kFloat || type == DataType::kDouble;
    const Word mask = static_cast<Word>(~(is_real ? Word{1} << (8 * sizeof(Word) - 1) : Word{0}));
    const Loose<Word>* from = c.input_data<Loose<Word>>(0);
    size_t n = 0;
    const size_t count = x.count();
    for (size_t i = 0; i < count; ++i) n += (from[i] & mask) != 0 ? 1 : 0;
    // A number counts as a list of one.
    const uint32_t rank = max<uint32_t>(x.rank, 1);
    Shape shape;
    shape.append(rank);
    shape.append(static_cast<int64_t>(n));
    ORTOLAN_TRY(c.allocate_output(0, shape));
    Loose<int64_t>* to = c.output_data<Loose<int64_t>>(0);
    int64_t index[kMaxRank] = {};
    size_t found = 0;
    for (size_t i = 0; i < count; ++i) {
      if ((from[i] & mask) != 0) {
        for (uint32_t d = 0; d < rank; ++d) to[d * n + found] = index[d];
        ++found;
      }
      for (uint32_t d = x.rank; d-- > 0;) {
        if (++index[d] < x[d]) break;
        index[d] = 0;
      }
    }
    return Status::kOk;
  }
};

struct Compress {
  static Status infer(Context& c) {
    if (c.input_shape(1).rank != 1)
      return c.invalid("condition of shape % needs one dimension", c.input_shape(1).span());
    int64_t axis = c.attribute_int("axis", 0);
    return c.attribute("axis") ? resolve_axis(c, &axis, c.input_shape(0).rank) : Status::kOk;
  }
  static Status run(Context& c) {
    const Shape& x = c.input_shape(0);
    const char* condition = c.input_data<char>(1);
    Shape shape;
    size_t outer = 1, n = x.count(), inner = word_size(c);
    uint32_t at = 0;
    if (c.attribute("axis")) {
      int64_t axis = c.attribute_int("axis", 0);
      normalize_axis(&axis, x.rank);
      at = static_cast<uint32_t>(axis);
      shape = x;
      outer = x.product(0, at);
      n = static_cast<size_t>(x[at]);
      inner *= x.product(at + 1, x.rank);
    } else {
      shape.append(0);
    }
    const size_t limit = min(n, c.input_shape(1).count());
    int64_t kept = 0;
    for (size_t i = 0; i < limit; ++i) kept += condition[i] != 0 ? 1 : 0;
    shape[at] = kept;
    ORTOLAN_TRY(c.allocate_output(0, shape));
    if (shape.count() == 0) return Status::kOk;
    char* to = c.output_data<char>(0);
    for (size_t j = 0; j < outer; ++j)
      for (size_t i = 0; i < limit; ++i) {
        if (condition[i] == 0) continue;
        copy_piece(to, c.input_data<char>(0) + (j * n + i) * inner, inner);
        to += inner;
      }
    return Status::kOk;
  }
};

// Of boxes that overlap, the one with the best score, class by class.
struct NonMaxSuppression {
  static Status infer(Context& c) {
    const Shape &boxes = c.input_shape(0), &scores = c.input_shape(1);
    if (boxes.rank != 3 || scores.rank != 3 || boxes[2] != 4 || boxes[0] != scores[0] ||
        boxes[1] != scores[2])
      return c.invalid("boxes of shape % do not fit scores of shape %", boxes.span(),
                       scores.span());
    for (size_t i = 2; i < 5; ++i)
      if (c.has_input(i) && c.input_shape(i).count() != 1)
        return c.invalid("input % must be one number", i);
    size_t bytes = 0, more = 0;
    ORTOLAN_TRY(scratch_bytes(c, static_cast<size_t>(scores[2]), sizeof(Candidate), &bytes));
    ORTOLAN_TRY(scratch_bytes(c, scores.count(), sizeof(Found), &more));
    c.request_scratch(more, bytes);
    return Status::kOk;
  }

  static Status run(Context& c) {
    const Shape& scores = c.input_shape(1);
    const size_t classes = static_cast<size_t>(scores[1]), n = static_cast<size_t>(scores[2]);
    const float threshold = c.has_input(3) ? *c.input_data<float>(3) : 0;
    if (!(threshold >= 0 && threshold <= 1)) return c.invalid("iou_threshold is outside [0, 1]");
    const int64_t wanted = c.has_input(2) ? *c.input_data<Loose<int64_t>>(2) : 0;
    Found* found = static_cast<Found*>(c.scratch());
    size_t count = 0;
    if (n > UINT32_MAX) return c.fail(Status::kLimitExceeded, "% boxes are too many", n);
    const size_t most = min(n, static_cast<size_t>(min<uint64_t>(
                                   static_cast<uint64_t>(max<int64_t>(wanted, 0)), UINT32_MAX)));
    for (size_t i = 0; i < scores.product(0, 2) && most; ++i) {
      const size_t before = count;
      select(c, i, i / classes, n, most, threshold, found, &count);
      for (size_t k = before; k < count; ++k) found[k].row = i;
    }
    Shape shape;
    shape.append(static_cast<int64_t>(count));
    shape.append(3);
    ORTOLAN_TRY(c.allocate_output(0, shape));
    Loose<int64_t>* to = c.output_data<Loose<int64_t>>(0);
    for (size_t i = 0; i < count; ++i) {
      *to++ = static_cast<int64_t>(found[i].row / classes);
      *to++ = static_cast<int64_t>(found[i].row % classes);
      *to++ = found[i].box;
    }
    return Status::kOk;
  }

 private:
  struct Candidate {
    float score;
    uint32_t box;
  };
  struct Found {
    size_t row;  // batch and class
    uint32_t box;
  };
  struct Edges {
    float low[2], high[2];
    float area() const { return (high[0] - low[0]) * (high[1] - low[1]); }
  };

  static Edges edges(const float* box, bool centered) {
    Edges e;
    for (int i = 0; i < 2; ++i) {
      if (centered) {
        e.low[i] = box[i] - box[2 + i] / 2;
        e.high[i] = box[i] + box[2 + i] / 2;
      } else {
        e.low[i] = min(box[i], box[2 + i]);
        e.high[i] = max(box[i], box[2 + i]);
      }
    }
    return e;
  }
  static bool overlap(const Edges& a, const Edges& b, float threshold) {
    Edges both;
    for (int i = 0; i < 2; ++i) {
      both.low[i] = max(a.low[i], b.low[i]);
      both.high[i] = min(a.high[i], b.high[i]);
      if (both.high[i] <= both.low[i]) return false;
    }
    const float shared = both.area(), all = a.area() + b.area() - shared;
    if (shared <= 0 || a.area() <= 0 || b.area() <= 0 || all <= 0) return false;
    return shared / all > threshold;
  }

  // Appends the boxes that row `row` of the scores keeps.
  static void select(Context& c, size_t row, size_t batch, size_t n, size_t most, float threshold,
                     Found* found, size_t* count) {
    const bool centered = c.attribute_int("center_point_box", 0) != 0;
    const float* scores = c.input_data<float>(1) + row * n;
    const float* boxes = c.input_data<float>(0) + batch * n * 4;
    const float* least = c.has_input(4) ? c.input_data<float>(4) : nullptr;
    Candidate* heap = static_cast<Candidate*>(c.thread_scratch(0));
    size_t left = 0;
    for (size_t i = 0; i < n; ++i)
      if (!least || scores[i] > *least) heap[left++] = {scores[i], static_cast<uint32_t>(i)};
    // The root is the best: the highest score, then the first box.
    const auto before = [](const Candidate& a, const Candidate& b) {
      return a.score < b.score || (a.score == b.score && a.box > b.box);
    };
    make_heap(heap, left, before);
    const size_t first = *count;
    while (left && *count - first < most) {
      const Candidate best = heap[0];
      heap[0] = heap[--left];
      sift_down(heap, left, 0, before);
      const Edges own = edges(boxes + best.box * size_t{4}, centered);
      bool keep = true;
      for (size_t k = first; keep && k < *count; ++k)
        keep = !overlap(own, edges(boxes + found[k].box * size_t{4}, centered), threshold);
      if (keep) found[(*count)++].box = best.box;
    }
  }
};

}  // namespace ortolan::portable
