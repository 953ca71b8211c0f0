// A tiny library for tests/test_microkernels.py: runs one microkernel on plain buffers. Shapes come
// as a list of integers, buffers as a list of pointers, so that one caller serves all kernels.
#include "kernels/conv_columns.h"
#include "kernels/conv_direct.h"
#include "kernels/depthwise.h"
#include "kernels/gemm.h"
#include "kernels/pool_channels_last.h"
#include "kernels/winograd.h"

#define EXPORT extern "C" __attribute__((visibility("default"), used))

// Clang calls these even in freestanding code; the barrier keeps the loops from becoming calls.
extern "C" __attribute__((weak)) void* memset(void* to, int value, size_t bytes) {
  unsigned char* p = static_cast<unsigned char*>(to);
  for (; bytes; --bytes, ++p) {
    *p = static_cast<unsigned char>(value);
    __asm__ volatile("" ::: "memory");
  }
  return to;
}
extern "C" __attribute__((weak)) void* memcpy(void* to, const void* from, size_t bytes) {
  char* p = static_cast<char*>(to);
  const char* q = static_cast<const char*>(from);
  for (; bytes; --bytes) {
    *p++ = *q++;
    __asm__ volatile("" ::: "memory");
  }
  return to;
}

namespace ortolan::ORTOLAN_ISA {
namespace {

enum Op : int32_t {
  kGemm,
  kGemmPlain,
  kConv,
  kDepthwise,
  kPool,
  kGlobalAverage,
  kWinograd,
  kColumns,
  kPartners
};

// Reads the integers in order.
class Reader {
 public:
  explicit Reader(const int32_t* p) : p_(p) {}
  size_t next() { return static_cast<size_t>(static_cast<ptrdiff_t>(*p_++)); }
  void three(size_t (&out)[3]) {
    for (size_t& v : out) v = next();
  }
  void three(ptrdiff_t (&out)[3]) {
    for (ptrdiff_t& v : out) v = *p_++;
  }
  Window window() {
    Window w;
    three(w.in);
    three(w.out);
    three(w.kernel);
    three(w.stride);
    three(w.dilation);
    three(w.pad);
    return w;
  }

 private:
  const int32_t* p_;
};

struct GemmProbe {
  size_t M, N, K, a_row, a_column, b_row, b_column, ldc, row_pieces, panel_pieces;
};
GemmProbe read_gemm(Reader& r) {
  GemmProbe g;
  size_t* fields[] = {&g.M,     &g.N,        &g.K,   &g.a_row,      &g.a_column,
                      &g.b_row, &g.b_column, &g.ldc, &g.row_pieces, &g.panel_pieces};
  for (size_t* field : fields) *field = r.next();
  return g;
}

ConvShape read_conv(Reader& r) {
  ConvShape s;
  s.batch = r.next();
  s.groups = r.next();
  s.channels = r.next();
  s.outputs = r.next();
  s.window = r.window();
  return s;
}

PoolArgs read_pool(Reader& r) {
  PoolArgs p;
  p.kind = static_cast<PoolKind>(r.next());
  p.count_include_pad = r.next();
  p.batch = r.next();
  p.channels = r.next();
  r.three(p.pad_after);
  p.window = r.window();
  return p;
}

// The last integer is the activation, the floats its parameters.
Epilogue read_epilogue(Reader& r, const float* f, const float* bias, const float* residual,
                       size_t ld_residual) {
  return {bias, residual, ld_residual, static_cast<Activation>(r.next()), f[0], f[1]};
}

// Calls run(begin, end) for `pieces` stretches of units, the last one first.
template <class Run>
void split(size_t units, size_t pieces, Run run) {
  for (size_t i = pieces; i-- > 0;) run(units * i / pieces, units * (i + 1) / pieces);
}

// Buffers: a, b, bias, residual, c, packed b, packed a.
void run_gemm(bool plain, Reader r, const float* f, float* const* buffers) {
  const GemmProbe p = read_gemm(r);
  GemmArgs g = {p.M, p.N, p.K, buffers[0], p.a_row, buffers[5], buffers[4], p.ldc, {}};
  g.epilogue = read_epilogue(r, f, buffers[2], buffers[3], p.N);
  if (p.a_column != 1) {
    pack_a(buffers[0], p.a_row, p.a_column, p.M, p.K, buffers[6]);
    g.a = buffers[6];
    g.lda = p.K;
  }
  if (plain) {
    split(p.N, p.panel_pieces,
          [&](size_t n0, size_t n1) { gemm_plain(g, buffers[1], p.b_row, n0, n1); });
    return;
  }
  pack_b(buffers[1], p.b_row, p.b_column, p.K, p.N, buffers[5]);
  split(p.M, p.row_pieces, [&](size_t m0, size_t m1) {
    split(panel_count(p.N), p.panel_pieces,
          [&](size_t p0, size_t p1) { gemm_rows_panels(g, m0, m1, p0, p1); });
  });
}

// Buffers: x, weights, bias, residual, y, packed weights, scratch.
void run_conv(Op op, Reader r, const float* f, float* const* buffers) {
  ConvArgs args;
  const int m = op == kWinograd ? static_cast<int>(r.next()) : 0;
  args.shape = read_conv(r);
  args.x = buffers[0];
  args.weights = buffers[5];
  args.y = buffers[4];
  const size_t pieces = r.next();
  args.epilogue = read_epilogue(r, f, buffers[2], buffers[3], args.shape.outputs);
  if (m) {
    pack_winograd_weights(args.shape, m, buffers[1], false, buffers[5]);
    split(winograd_units(args.shape, m, pieces), pieces,
          [&](size_t u0, size_t u1) { winograd_run_units(args, m, pieces, u0, u1, buffers[6]); });
  } else if (op == kColumns) {
    pack_columns_weights(args.shape, buffers[1], false, buffers[5]);
    split(columns_units(args.shape), pieces,
          [&](size_t u0, size_t u1) { columns_run_units(args, u0, u1, buffers[6]); });
  } else if (op == kPartners && partner_count(args.shape, kLanes) > 1) {
    const DepthwiseCodes* codes = partner_codes(partner_count(args.shape, kLanes));
    pack_partner_weights(args.shape, buffers[1], buffers[5]);
    split(depthwise_units(args.shape), pieces,
          [&](size_t u0, size_t u1) { depthwise_run_units(args, u0, u1, buffers[6], codes); });
  } else if (op == kConv || op == kPartners) {
    pack_conv_weights(args.shape, buffers[1], buffers[5]);
    split(conv_units(args.shape), pieces,
          [&](size_t u0, size_t u1) { conv_run_units(args, u0, u1, buffers[6]); });
  } else {
    pack_depthwise_weights(args.shape, buffers[1], buffers[5]);
    split(depthwise_units(args.shape), pieces,
          [&](size_t u0, size_t u1) { depthwise_run_units(args, u0, u1, buffers[6]); });
  }
}

// Buffers: x, then y as the fifth.
void run_pool(Reader r, float* const* buffers) {
  PoolArgs args = read_pool(r);
  args.x = buffers[0];
  args.y = buffers[4];
  split(pool_units(args), r.next(), [&](size_t u0, size_t u1) { pool_run_units(args, u0, u1); });
}
void run_global_average(Reader r, float* const* buffers) {
  const size_t batch = r.next(), pixels = r.next(), channels = r.next();
  split(global_average_units(batch, channels), r.next(), [&](size_t u0, size_t u1) {
    global_average_run_units(buffers[0], pixels, channels, buffers[4], u0, u1);
  });
}

}  // namespace

// Bytes of buffer 5 (packed weights) or 6 (scratch).
EXPORT size_t probe_size(Op op, const int32_t* integers, int buffer) {
  Reader r(integers);
  if (op == kGemm || op == kGemmPlain) {
    const GemmProbe p = read_gemm(r);
    return (buffer == 5 ? packed_size(p.N, p.K) : p.M * p.K) * sizeof(float);
  }
  if (op == kPool || op == kGlobalAverage) return 0;
  const int m = op == kWinograd ? static_cast<int>(r.next()) : 0;
  const ConvShape s = read_conv(r);
  if (m)
    return buffer == 5 ? winograd_weights_size(s, m) * sizeof(float) : winograd_scratch_size(s, m);
  if (op == kColumns)
    return buffer == 5 ? packed_columns_size(s) * sizeof(float) : columns_scratch_size(s);
  const size_t partners = op == kPartners ? partner_count(s, kLanes) : 1;
  if (partners > 1)
    return buffer == 5 ? partners * packed_depthwise_size(s) * sizeof(float)
                       : depthwise_scratch_size(s);
  if (op == kConv || op == kPartners)
    return buffer == 5 ? packed_conv_size(s) * sizeof(float) : conv_scratch_size(s);
  return buffer == 5 ? packed_depthwise_size(s) * sizeof(float) : depthwise_scratch_size(s);
}

EXPORT void probe_run(Op op, const int32_t* integers, const float* floats, float* const* buffers) {
  Reader r(integers);
  if (op == kGemm || op == kGemmPlain) return run_gemm(op == kGemmPlain, r, floats, buffers);
  if (op == kPool) return run_pool(r, buffers);
  if (op == kGlobalAverage) return run_global_average(r, buffers);
  run_conv(op, r, floats, buffers);
}

}  // namespace ortolan::ORTOLAN_ISA
