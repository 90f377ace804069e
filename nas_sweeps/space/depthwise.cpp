// Gradients of depthwise convolutions of one map by several filters, on a CPU.
//
// Maps are B images of H x W pixels with C channels last in memory; filters are (C, k, k) with
// k = 3 or 5, padded so that stride 1 keeps the size. An image is copied into a scratch image with
// a border of zeros and channels rounded up to whole vectors, so that there is no other special
// case, and all filters of a map read one copy while it is in cache. With stride s, those pixels
// of the input that are alike modulo s meet the same taps: one sum over taps (`correlate`) each.
//
// Sums run in one order, whatever the number of threads: an image belongs to one thread, and the
// gradients of a filter are added image by image. kernel.py calls these functions by their C
// names, so nothing of Python or torch is included here and they compile in about a second.

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class T> struct Vectors;
template <> struct Vectors<float> {
  typedef float vector __attribute__((vector_size(vector_bytes), aligned(4), may_alias));
};
template <> struct Vectors<double> {
  typedef double vector __attribute__((vector_size(vector_bytes), aligned(8), may_alias));
};
template <class T> using Vector = typename Vectors<T>::vector;
template <class T> constexpr int lanes = vector_bytes / sizeof(T);

template <class T> inline Vector<T> load(const T *from) {
  return *reinterpret_cast<const Vector<T> *>(from);
}

// The first `count` lanes; the others are zero.
template <class T> inline Vector<T> load(const T *from, int count) {
  if (count >= lanes<T>) return load(from);
  Vector<T> out{};
  std::memcpy(&out, from, count * sizeof(T));
  return out;
}

template <class T> inline void store(T *to, Vector<T> value, int count) {
  if (count >= lanes<T>)
    *reinterpret_cast<Vector<T> *>(to) = value;
  else
    std::memcpy(to, &value, count * sizeof(T));
}

struct Shape { // of a map
  int height, width, channels;
  std::ptrdiff_t size() const { return std::ptrdiff_t(height) * width * channels; }
};

struct Form { // of a filter
  int side, stride, dilation;
  int taps() const { return side * side; }
  int border() const { return dilation * (side / 2); }
  Shape out(Shape in) const {
    return {(in.height - 1) / stride + 1, (in.width - 1) / stride + 1, in.channels};
  }
};

template <class T> int whole(int channels) {
  return (channels + lanes<T> - 1) / lanes<T> * lanes<T>;
}

// One image with a border of zeros, in memory that each thread keeps.
template <class T> struct Padded {
  struct alignas(64) Line { // of cache: a vector that straddles two takes twice as long
    T values[64 / sizeof(T)];
  };
  std::vector<Line> lines;
  T *values;
  int width, channels, border;

  const T *fill(const T *image, Shape shape, int new_border) {
    border = new_border, width = shape.width + 2 * border, channels = whole<T>(shape.channels);
    const std::size_t size = std::size_t(width) * (shape.height + 2 * border) * channels;
    lines.assign(size * sizeof(T) / sizeof(Line) + 1, Line{});
    values = lines.data()->values;
    for (int y = 0; y < shape.height; ++y) {
      T *row = values + offset(y, 0);
      const T *from = image + std::ptrdiff_t(y) * shape.width * shape.channels;
      if (channels == shape.channels)
        std::memcpy(row, from, sizeof(T) * shape.width * channels);
      else
        for (int x = 0; x < shape.width; ++x)
          std::copy_n(from + x * shape.channels, shape.channels, row + x * channels);
    }
    return values;
  }
  std::ptrdiff_t offset(int y, int x) const {
    return (std::ptrdiff_t(y + border) * width + x + border) * channels;
  }
};

// Filters as (taps, channels rounded up), one after the other.
template <class T>
std::vector<T> packed(const T *const *weights, const Form *forms, int filters, int channels) {
  std::vector<T> out;
  for (int f = 0; f < filters; ++f)
    for (int tap = 0; tap < forms[f].taps(); ++tap)
      for (int c = 0; c < whole<T>(channels); ++c)
        out.push_back(c < channels ? weights[f][c * forms[f].taps() + tap] : T(0));
  return out;
}

template <class T> struct Tap {
  std::ptrdiff_t offset; // in the source, from where a sum starts
  const T *weight;
};

template <class T> struct Grid { // where sums start in the source, or go in the destination
  T *start;
  std::ptrdiff_t row, column;
};

template <class T, int count>
inline void block(const T *source, std::ptrdiff_t step, const std::vector<Tap<T>> &taps, int c,
                  T *target, std::ptrdiff_t target_step, int channels, bool add) {
  Vector<T> sums[count];
  for (int n = 0; n < count; ++n)
    sums[n] = add ? load(target + n * target_step, channels) : Vector<T>{};
  for (const Tap<T> &tap : taps) {
    const Vector<T> weight = load(tap.weight + c);
    const T *from = source + tap.offset;
#pragma GCC unroll 8
    for (int n = 0; n < count; ++n) sums[n] += load(from + n * step) * weight;
  }
  for (int n = 0; n < count; ++n) store(target + n * target_step, sums[n], channels);
}

// target[y, x] = sum over taps of source[y, x + tap] * weight; with `add`, on top of what is there.
template <class T>
void correlate(Grid<const T> source, const std::vector<Tap<T>> &taps, Grid<T> target, int height,
               int width, int channels, bool add) {
  for (int y = 0; y < height; ++y)
    for (int c = 0; c < channels; c += lanes<T>) {
      const T *from = source.start + y * source.row + c;
      T *to = target.start + y * target.row + c;
      int x = 0;
      const auto run = [&](auto size) {
        constexpr int count = decltype(size)::value;
        for (; x + count <= width; x += count)
          block<T, count>(from + x * source.column, source.column, taps, c,
                          to + x * target.column, target.column, channels - c, add);
      };
      run(std::integral_constant<int, 8>{});
      run(std::integral_constant<int, 4>{});
      run(std::integral_constant<int, 1>{});
    }
}

int largest_border(const Form *forms, int filters) {
  int border = 0;
  for (int f = 0; f < filters; ++f) border = std::max(border, forms[f].border());
  return border;
}

// The taps that a pixel of the input meets, which is at `phase` modulo the stride.
template <class T>
std::vector<Tap<T>> met(const Form &form, const Padded<T> &padded, int row_phase,
                        int column_phase, const T *weight) {
  std::vector<Tap<T>> taps;
  for (int i = 0; i < form.side; ++i)
    for (int j = 0; j < form.side; ++j, weight += padded.channels) {
      const int y = row_phase + form.border() - i * form.dilation;
      const int x = column_phase + form.border() - j * form.dilation;
      if (y % form.stride == 0 && x % form.stride == 0)
        taps.push_back({padded.offset(y / form.stride, x / form.stride), weight});
    }
  return taps;
}

template <class T>
void input_gradient(int batch, Shape shape, int filters, const Form *forms,
                    const T *const *weights, const T *const *slopes, T *gradient, int threads) {
  const std::vector<T> all = packed(weights, forms, filters, shape.channels);
#pragma omp parallel for num_threads(threads)
  for (int b = 0; b < batch; ++b) {
    static thread_local Padded<T> padded;
    const T *weight = all.data();
    const std::ptrdiff_t row = std::ptrdiff_t(shape.width) * shape.channels;
    T *target = gradient + b * shape.size();
    for (int f = 0; f < filters; ++f) {
      const Form form = forms[f];
      const Shape out = form.out(shape);
      const T *image = padded.fill(slopes[f] + b * out.size(), out, form.border());
      const int s = form.stride;
      for (int y = 0; y < s; ++y)
        for (int x = 0; x < s; ++x)
          correlate<T>({image, std::ptrdiff_t(padded.width) * padded.channels, padded.channels},
                       met(form, padded, y, x, weight),
                       {target + y * row + x * shape.channels, s * row,
                        std::ptrdiff_t(s) * shape.channels},
                       (shape.height - y + s - 1) / s, (shape.width - x + s - 1) / s,
                       shape.channels, f > 0);
      weight += form.taps() * padded.channels;
    }
  }
}

// The sum over one image of input times slope, for every tap; it stays in registers.
template <class T, int side>
void slopes_of_taps(const Padded<T> &padded, const T *slope, Shape out, Form form, T *sums) {
  const int first = -form.border(), dilation = form.dilation;
  for (int c = 0; c < padded.channels; c += lanes<T>) {
    Vector<T> total[side * side] = {};
    for (int y = 0; y < out.height; ++y)
      for (int x = 0; x < out.width; ++x) {
        const std::ptrdiff_t pixel = (std::ptrdiff_t(y) * out.width + x) * out.channels;
        const Vector<T> d = load(slope + pixel + c, out.channels - c);
        const T *from = padded.values + c +
                        padded.offset(y * form.stride + first, x * form.stride + first);
#pragma GCC unroll 5
        for (int i = 0; i < side; ++i)
#pragma GCC unroll 5
          for (int j = 0; j < side; ++j)
            total[i * side + j] +=
                load(from + (std::ptrdiff_t(i) * padded.width + j) * dilation * padded.channels) *
                d;
      }
    for (int tap = 0; tap < side * side; ++tap)
      store(sums + tap * padded.channels + c, total[tap], lanes<T>);
  }
}

template <class T>
void filter_gradients(const T *maps, int batch, Shape shape, int filters, const Form *forms,
                      const T *const *slopes, T *const *gradients, int threads) {
  const int channels = whole<T>(shape.channels);
  int taps = 0;
  for (int f = 0; f < filters; ++f) taps += forms[f].taps();
  std::vector<T> sums(std::size_t(batch) * taps * channels); // (batch, all taps, channels)
#pragma omp parallel for num_threads(threads)
  for (int b = 0; b < batch; ++b) {
    static thread_local Padded<T> padded;
    padded.fill(maps + b * shape.size(), shape, largest_border(forms, filters));
    T *own = sums.data() + std::ptrdiff_t(b) * taps * channels;
    for (int f = 0; f < filters; ++f) {
      const Shape out = forms[f].out(shape);
      const auto run = forms[f].side == 3 ? slopes_of_taps<T, 3> : slopes_of_taps<T, 5>;
      run(padded, slopes[f] + b * out.size(), out, forms[f], own);
      own += forms[f].taps() * channels;
    }
  }
  for (int b = 1; b < batch; ++b)
    for (std::ptrdiff_t n = 0; n < std::ptrdiff_t(taps) * channels; ++n)
      sums[n] += sums[std::ptrdiff_t(b) * taps * channels + n];
  const T *sum = sums.data();
  for (int f = 0; f < filters; ++f)
    for (int tap = 0; tap < forms[f].taps(); ++tap, sum += channels)
      for (int c = 0; c < shape.channels; ++c)
        gradients[f][c * forms[f].taps() + tap] = sum[c];
}

#define NAS_SWEEPS_EXPORT(T, suffix)                                                             \
  extern "C" void input_gradient_##suffix(const Shape *shape, int batch, int filters,            \
                                          const Form *forms, const T *const *weights,            \
                                          const T *const *slopes, T *gradient, int threads) {    \
    input_gradient<T>(batch, *shape, filters, forms, weights, slopes, gradient, threads);        \
  }                                                                                              \
  extern "C" void filter_gradients_##suffix(const Shape *shape, int batch, int filters,          \
                                            const Form *forms, const T *maps,                    \
                                            const T *const *slopes, T *const *gradients,         \
                                            int threads) {                                       \
    filter_gradients<T>(maps, batch, *shape, filters, forms, slopes, gradients, threads);        \
  }

NAS_SWEEPS_EXPORT(float, float32)
NAS_SWEEPS_EXPORT(double, float64)
