// Decision trees, for the three operators that hold them. `TreeBuilder` makes a compact array of
// nodes from the lists of attributes; leaves name a range of weights.
#pragma once

#include "kernels/scores.h"

namespace ortolan::portable {

// In the order of TreeEnsemble's numbers.
enum class TreeMode : uint8_t { kLeq, kLt, kGte, kGt, kEq, kNeq, kMember, kLeaf };
enum class Aggregate : uint8_t { kAverage, kSum, kMin, kMax };

// W: type of thresholds and weights, float or double.
template <class W>
struct TreeNode {
  W threshold;
  uint32_t feature;
  uint32_t yes, no;  // the next node; of a leaf: its first weight, and how many it has
  uint32_t set;      // of kMember: index of the first member, which a NaN ends
  TreeMode mode;
  bool nan_is_yes;
  bool has_parent;
};
template <class W>
struct TreeWeight {
  uint32_t target;
  W value;
};

// What the shapes of the outputs need to know.
struct TreeShape {
  size_t targets = 1, features = 0;
  size_t weight = sizeof(float);  // bytes
};

template <class W>
struct Ensemble : TreeShape {
  Span<TreeNode<W>> nodes;
  Span<uint32_t> roots;
  Span<TreeWeight<W>> weights;
  Span<W> base;
  Span<W> members;
  Labels labels;  // of a classifier
  PostTransform transform = PostTransform::kNone;
  Aggregate aggregate = Aggregate::kSum;
  bool is_binary = false, is_positive = true;

  // Trees that are walked at once: each step of one waits for memory, those of others do not.
  static constexpr size_t kWalks = 8;

  // The leaves of `count` trees, no more than kWalks. TreeBuilder has seen to it that walks end.
  template <class T>
  void find_leaves(const uint32_t* tree_roots, size_t count, const T* x, uint32_t* at) const {
    for (size_t i = 0; i < count; ++i) at[i] = tree_roots[i];
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t i = 0; i < count; ++i) {
        const TreeNode<W>& node = nodes[at[i]];
        if (node.mode == TreeMode::kLeaf) continue;
        const W value = static_cast<W>(x[node.feature]);
        const bool yes = node.mode == TreeMode::kLeq ? value <= node.threshold : test(node, value);
        // Which way is anybody's guess: a selection, not a branch.
        uint32_t next = node.no;
        if (yes | (node.nan_is_yes & (value != value))) next = node.yes;
        at[i] = next;
        moved = true;
      }
    }
  }

  // Sums, or the least or greatest, of the trees' weights; `has` tells which targets got any.
  template <class T>
  void score(const T* x, W* sums, bool* has) const {
    for (size_t i = 0; i < targets; ++i) sums[i] = 0, has[i] = false;
    uint32_t leaves[kWalks];
    for (size_t tree = 0; tree < roots.size; ++tree) {
      if (tree % kWalks == 0)
        find_leaves(roots.data + tree, min(kWalks, roots.size - tree), x, leaves);
      const TreeNode<W>& found = nodes[leaves[tree % kWalks]];
      // As in onnxruntime, a single target takes the first weight of a leaf.
      const size_t count = targets == 1 ? min<size_t>(found.no, 1) : found.no;
      for (size_t k = found.yes; k < found.yes + count; ++k) {
        const size_t i = weights[k].target;
        sums[i] = combine(sums[i], weights[k].value, has[i]);
        has[i] = true;
      }
    }
  }

 private:
  bool test(const TreeNode<W>& node, W x) const {
    switch (node.mode) {
      case TreeMode::kLeq:
        return x <= node.threshold;
      case TreeMode::kLt:
        return x < node.threshold;
      case TreeMode::kGte:
        return x >= node.threshold;
      case TreeMode::kGt:
        return x > node.threshold;
      case TreeMode::kEq:
        return x == node.threshold;
      case TreeMode::kNeq:
        return x != node.threshold;
      default:
        break;
    }
    for (size_t i = node.set; i < members.size && members[i] == members[i]; ++i)
      if (members[i] == x) return true;
    return false;
  }
  W combine(W a, W b, bool has) const {
    if (aggregate == Aggregate::kMin) return !has || b < a ? b : a;
    if (aggregate == Aggregate::kMax) return !has || b > a ? b : a;
    return a + b;
  }
};

// Numbers of an attribute: floats, or a tensor of float, double or uint8. Read through `copy`: a
// tensor of a file need not be aligned.
struct Numbers {
  const char* data = nullptr;
  size_t size = 0;
  DataType type = DataType::kFloat;

  double operator[](size_t i) const {
    float f;
    double d;
    switch (type) {
      case DataType::kFloat:
        copy(&f, data + i * sizeof(f), sizeof(f));
        return f;
      case DataType::kDouble:
        copy(&d, data + i * sizeof(d), sizeof(d));
        return d;
      default:
        return static_cast<uint8_t>(data[i]);
    }
  }
  static Numbers of(const Context& c, String name) {
    const Attribute* a = c.attribute(name);
    if (a && a->kind == AttributeKind::kFloats)
      return {reinterpret_cast<const char*>(a->floats.data), a->floats.size, DataType::kFloat};
    if (!a || a->kind != AttributeKind::kTensor) return {};
    const DataType type = a->tensor.type;
    if (type != DataType::kFloat && type != DataType::kDouble && type != DataType::kUint8)
      return {};
    return {static_cast<const char*>(a->tensor.data), a->tensor.shape.count(), type};
  }
  static Numbers of(const Context& c, String name, String tensor_name) {
    const Numbers numbers = of(c, tensor_name);
    return numbers.size ? numbers : of(c, name);
  }
};

template <class W>
class TreeBuilder {
 public:
  TreeBuilder(Context& c, Ensemble<W>& ensemble)
      : c_(c), e_(ensemble), nan_is_yes_(c.attribute_ints("nodes_missing_value_tracks_true")) {}

  // TreeEnsembleClassifier and TreeEnsembleRegressor.
  ORTOLAN_NOINLINE Status read_lists(bool is_classifier) {
    trees_ = c_.attribute_ints("nodes_treeids"), ids_ = c_.attribute_ints("nodes_nodeids");
    ORTOLAN_TRY(sort_nodes());
    ORTOLAN_TRY(read_nodes());
    ORTOLAN_TRY(find_roots());
    return is_classifier
               ? read_weights(Numbers::of(c_, "class_weights", "class_weights_as_tensor"),
                              c_.attribute_ints("class_treeids"),
                              c_.attribute_ints("class_nodeids"), c_.attribute_ints("class_ids"))
               : read_weights(Numbers::of(c_, "target_weights", "target_weights_as_tensor"),
                              c_.attribute_ints("target_treeids"),
                              c_.attribute_ints("target_nodeids"), c_.attribute_ints("target_ids"));
  }

  ORTOLAN_NOINLINE Status read_base() {
    const Numbers base = Numbers::of(c_, "base_values", "base_values_as_tensor");
    if (base.size && base.size != e_.targets && (base.size > 2 || e_.targets > 2))
      return c_.invalid("% base values for % scores", base.size, e_.targets);
    if (!make(base.size, &e_.base)) return c_.out_of_memory();
    for (size_t i = 0; i < base.size; ++i) e_.base[i] = static_cast<W>(base[i]);
    return Status::kOk;
  }

  // TreeEnsemble: nodes, then its leaves as nodes.
  ORTOLAN_NOINLINE Status read_tensors() {
    const Span<const int64_t> roots = c_.attribute_ints("tree_roots");
    const Span<const int64_t> features = c_.attribute_ints("nodes_featureids");
    const Span<const int64_t> leaf_targets = c_.attribute_ints("leaf_targetids");
    const Numbers modes = Numbers::of(c_, "nodes_modes"), splits = Numbers::of(c_, "nodes_splits");
    const Numbers values = Numbers::of(c_, "leaf_weights");
    const size_t n = features.size, leaves = leaf_targets.size;
    if (modes.size != n || splits.size != n || values.size != leaves || n + leaves > kMaxNodes)
      return c_.invalid("its lists differ in length");
    if (!make(n + leaves, &e_.nodes) || !make(leaves, &e_.weights) || !make(roots.size, &e_.roots))
      return c_.out_of_memory();
    for (size_t i = 0; i < leaves; ++i) {
      ORTOLAN_TRY(set_weight(i, leaf_targets[i], values[i]));
      e_.nodes[n + i].mode = TreeMode::kLeaf;
      e_.nodes[n + i].yes = static_cast<uint32_t>(i), e_.nodes[n + i].no = 1;
    }
    ORTOLAN_TRY(read_members());
    for (size_t i = 0; i < n; ++i) {
      if (!(modes[i] >= 0 && modes[i] < static_cast<double>(TreeMode::kLeaf)))
        return c_.invalid("mode of node % is unknown", i);
      ORTOLAN_TRY(set_node(i, static_cast<TreeMode>(static_cast<uint8_t>(modes[i])), features[i],
                           splits[i]));
      ORTOLAN_TRY(next_set(e_.nodes[i]));
    }
    ORTOLAN_TRY(link_tensors(n, leaves));
    for (size_t i = 0; i < roots.size; ++i) {
      if (roots[i] < 0 || static_cast<size_t>(roots[i]) >= n || e_.nodes[roots[i]].has_parent)
        return c_.invalid("% is no root of a tree", roots[i]);
      e_.roots[i] = static_cast<uint32_t>(roots[i]);
    }
    return Status::kOk;
  }

 private:
  static constexpr size_t kMaxNodes = size_t{1} << 28;
  static constexpr uint32_t kNone = ~0u;

  template <class T>
  bool make(size_t n, Span<T>* out) {
    size_t bytes;
    if (__builtin_mul_overflow(n, sizeof(T), &bytes)) return false;
    *out = {static_cast<T*>(c_.model_memory(max<size_t>(bytes, 1))), n};
    return out->data;
  }

  // order_ lists the nodes by tree and number; most files have them so.
  int compare(size_t i, int64_t tree, int64_t id) const {
    if (trees_[i] != tree) return trees_[i] < tree ? -1 : 1;
    return ids_[i] == id ? 0 : ids_[i] < id ? -1 : 1;
  }
  bool less(uint32_t a, uint32_t b) const { return compare(a, trees_[b], ids_[b]) < 0; }
  void sift(size_t i, size_t n) {
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
      if (child + 1 < n && less(order_[child], order_[child + 1])) ++child;
      if (!less(order_[i], order_[child])) return;
      swap(order_[i], order_[child]);
    }
  }
  Status sort_nodes() {
    const size_t n = trees_.size;
    if (ids_.size != n || n == 0 || n > kMaxNodes) return c_.invalid("its lists differ in length");
    if (!make(n, &order_)) return c_.out_of_memory();
    bool sorted = true;
    for (uint32_t i = 0; i < n; ++i) {
      order_[i] = i;
      sorted = sorted && (i == 0 || less(i - 1, i));
    }
    if (sorted) return Status::kOk;
    for (size_t i = n / 2; i-- > 0;) sift(i, n);
    for (size_t i = n; i-- > 1;) swap(order_[0], order_[i]), sift(0, i);
    for (size_t i = 1; i < n; ++i)
      if (!less(order_[i - 1], order_[i]))
        return c_.invalid("node % of tree % comes twice", ids_[order_[i]], trees_[order_[i]]);
    return Status::kOk;
  }
  uint32_t find(int64_t tree, int64_t id) const {
    size_t low = 0, high = order_.size;
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (compare(order_[middle], tree, id) < 0)
        low = middle + 1;
      else
        high = middle;
    }
    return low < order_.size && compare(order_[low], tree, id) == 0 ? order_[low] : kNone;
  }

  Status set_node(size_t i, TreeMode mode, int64_t feature, double split) {
    if (feature < 0 || feature > 0x7fffffff)
      return c_.invalid("node % has the feature %", i, feature);
    TreeNode<W>& node = e_.nodes[i];
    node = {static_cast<W>(split), static_cast<uint32_t>(feature), 0, 0, 0, mode, false, false};
    node.nan_is_yes = i < nan_is_yes_.size && nan_is_yes_[i] == 1;
    if (mode != TreeMode::kLeaf) e_.features = max(e_.features, static_cast<size_t>(feature) + 1);
    return Status::kOk;
  }
  // Nodes that are no leaves have one parent at most and roots none, so every walk ends.
  Status adopt(size_t child) {
    TreeNode<W>& node = e_.nodes[child];
    if (node.mode != TreeMode::kLeaf && node.has_parent)
      return c_.invalid("node % has two parents", child);
    node.has_parent = true;
    return Status::kOk;
  }
  Status link(size_t i, size_t yes, size_t no) {
    e_.nodes[i].yes = static_cast<uint32_t>(yes), e_.nodes[i].no = static_cast<uint32_t>(no);
    ORTOLAN_TRY(adopt(yes));
    return yes == no ? Status::kOk : adopt(no);
  }

  Status read_nodes() {
    constexpr String kModes[] = {"BRANCH_LEQ", "BRANCH_LT",  "BRANCH_GTE",    "BRANCH_GT",
                                 "BRANCH_EQ",  "BRANCH_NEQ", "BRANCH_MEMBER", "LEAF"};
    const size_t n = trees_.size;
    const Attribute* modes = c_.attribute("nodes_modes");
    const Span<const int64_t> yes = c_.attribute_ints("nodes_truenodeids"),
                              no = c_.attribute_ints("nodes_falsenodeids"),
                              features = c_.attribute_ints("nodes_featureids");
    const Numbers values = Numbers::of(c_, "nodes_values", "nodes_values_as_tensor");
    if (!modes || modes->kind != AttributeKind::kStrings || modes->strings.size != n ||
        yes.size != n || no.size != n || features.size != n || values.size != n)
      return c_.invalid("its lists differ in length");
    if (!make(n, &e_.nodes)) return c_.out_of_memory();
    for (size_t i = 0; i < n; ++i) {
      size_t mode;
      if (!find_name(modes->strings[i], kModes, &mode) ||
          static_cast<TreeMode>(mode) == TreeMode::kMember)
        return c_.invalid("mode % of a node is unknown", modes->strings[i]);
      ORTOLAN_TRY(set_node(i, static_cast<TreeMode>(mode), features[i], values[i]));
    }
    for (size_t i = 0; i < n; ++i) {
      if (e_.nodes[i].mode == TreeMode::kLeaf) continue;
      const uint32_t a = find(trees_[i], yes[i]), b = find(trees_[i], no[i]);
      if (a == kNone || b == kNone)
        return c_.invalid("a child of node % in tree % is missing", ids_[i], trees_[i]);
      ORTOLAN_TRY(link(i, a, b));
    }
    return Status::kOk;
  }

  // The root of a tree is the first of its nodes in the file.
  Status find_roots() {
    size_t count = 0;
    for (size_t i = 0; i < order_.size; ++i)
      count += i == 0 || trees_[order_[i]] != trees_[order_[i - 1]];
    if (!make(count, &e_.roots)) return c_.out_of_memory();
    uint32_t* root = e_.roots.data - 1;
    for (size_t i = 0; i < order_.size; ++i)
      if (i == 0 || trees_[order_[i]] != trees_[order_[i - 1]])
        *++root = order_[i];
      else
        *root = min(*root, order_[i]);
    for (uint32_t i : e_.roots)
      if (e_.nodes[i].has_parent) return c_.invalid("tree % does not begin with a root", trees_[i]);
    return Status::kOk;
  }

  Status set_weight(size_t k, int64_t target, double value) {
    if (target < 0 || static_cast<uint64_t>(target) >= e_.targets)
      return c_.invalid("a leaf votes for %, but there are % scores", target, e_.targets);
    e_.weights[k] = {static_cast<uint32_t>(target), static_cast<W>(value)};
    return Status::kOk;
  }
  // Weights are sorted by leaf; within one they keep the file's order.
  Status read_weights(const Numbers& values, Span<const int64_t> trees, Span<const int64_t> ids,
                      Span<const int64_t> targets) {
    const size_t n = values.size;
    if (trees.size != n || ids.size != n || targets.size != n || n > kMaxNodes)
      return c_.invalid("its lists of weights differ in length");
    if (!make(n, &e_.weights)) return c_.out_of_memory();
    for (size_t k = 0; k < n; ++k) {
      const uint32_t i = find(trees[k], ids[k]);
      if (i == kNone) return c_.invalid("there is no node % in tree %", ids[k], trees[k]);
      if (e_.nodes[i].mode == TreeMode::kLeaf) ++e_.nodes[i].no;
    }
    uint32_t next = 0;
    for (TreeNode<W>& node : e_.nodes)
      if (node.mode == TreeMode::kLeaf) node.yes = next, next += node.no, node.no = 0;
    for (size_t k = 0; k < n; ++k) {
      TreeNode<W>& node = e_.nodes[find(trees[k], ids[k])];
      if (node.mode == TreeMode::kLeaf)
        ORTOLAN_TRY(set_weight(node.yes + node.no++, targets[k], values[k]));
    }
    return Status::kOk;
  }

  Status read_members() {
    const Numbers members = Numbers::of(c_, "membership_values");
    if (members.size > kMaxNodes) return c_.invalid("it has too many members");
    if (!make(members.size, &e_.members)) return c_.out_of_memory();
    for (size_t i = 0; i < members.size; ++i) e_.members[i] = static_cast<W>(members[i]);
    return Status::kOk;
  }
  // Each membership node takes the next set.
  Status next_set(TreeNode<W>& node) {
    if (node.mode != TreeMode::kMember) return Status::kOk;
    if (at_ >= e_.members.size) return c_.invalid("it has fewer sets than membership nodes");
    node.set = static_cast<uint32_t>(at_);
    while (at_ < e_.members.size && e_.members[at_] == e_.members[at_]) ++at_;
    ++at_;
    return Status::kOk;
  }

  Status link_tensors(size_t n, size_t leaves) {
    const Span<const int64_t> yes = c_.attribute_ints("nodes_truenodeids"),
                              no = c_.attribute_ints("nodes_falsenodeids"),
                              yes_leaf = c_.attribute_ints("nodes_trueleafs"),
                              no_leaf = c_.attribute_ints("nodes_falseleafs");
    if (yes.size != n || no.size != n || yes_leaf.size != n || no_leaf.size != n)
      return c_.invalid("its lists differ in length");
    auto place = [&](int64_t id, bool is_leaf, size_t* found) {
      *found = static_cast<size_t>(id) + (is_leaf ? n : 0);
      return id >= 0 && static_cast<uint64_t>(id) < (is_leaf ? leaves : n);
    };
    for (size_t i = 0; i < n; ++i) {
      size_t a, b;
      if (!place(yes[i], yes_leaf[i] != 0, &a) || !place(no[i], no_leaf[i] != 0, &b))
        return c_.invalid("a child of node % is missing", i);
      ORTOLAN_TRY(link(i, a, b));
    }
    return Status::kOk;
  }

  Context& c_;
  Ensemble<W>& e_;
  Span<const int64_t> nan_is_yes_, trees_, ids_;
  Span<uint32_t> order_;
  size_t at_ = 0;  // where the next set of members begins
};

}  // namespace ortolan::portable
