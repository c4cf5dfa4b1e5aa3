// Stands in for libcublasLt in tests: column-major products of f32 and bf16 on the memory of the stand-in of libcuda.
#include <map>

#include "stand_in.h"

struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t stride;
};
struct Product {
  int compute, scale, transposed[2];
};
struct Preference {
  std::map<int, uint64_t> values;
};
struct Algorithm {
  uint64_t data[8];
};  // rows it was chosen for, parts of k, alignment
struct Candidate {
  Algorithm algorithm;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};

extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 130000; }
API cublasLtCreate(void** handle) { return *handle = malloc(1), stand_in_usable() ? 0 : 1; }
API cublasLtDestroy(void* handle) { return free(handle), 0; }
API cublasLtMatmulDescCreate(Product** made, int compute, int scale) {
  return *made = new Product{compute, scale, {}}, 0;
}
API cublasLtMatmulDescDestroy(Product* product) { return delete product, 0; }
API cublasLtMatmulDescSetAttribute(Product* product, int which, const void* value, size_t bytes) {
  if ((which != 3 && which != 4) || bytes != 4) return 7;
  return product->transposed[which - 3] = *(const int*)value, 0;
}
API cublasLtMatrixLayoutCreate(Layout** made, int type, uint64_t rows, uint64_t columns,
                               int64_t stride) {
  return *made = new Layout{type, rows, columns, stride}, stride >= (int64_t)rows ? 0 : 7;
}
API cublasLtMatrixLayoutDestroy(Layout* layout) { return delete layout, 0; }
API cublasLtMatmulPreferenceCreate(Preference** made) { return *made = new Preference, 0; }
API cublasLtMatmulPreferenceDestroy(Preference* preference) { return delete preference, 0; }
API cublasLtMatmulPreferenceInit_internal(Preference*, size_t) { return 0; }
API cublasLtMatmulPreferenceSetAttribute(Preference* preference, int which, const void* value,
                                         size_t bytes) {
  return memcpy(&preference->values[which], value, bytes), 0;
}
API cublasLtMatmulAlgoGetHeuristic(void*, Product*, Layout*, Layout*, Layout* c, Layout*,
                                   Preference* preference, int room, Candidate* found, int* count) {
  // The first sums in four parts; nobody who wants one piece may take it.
  for (int i = 0; i < 2 && i < room; i++)
    found[i] = {{{c->columns, i ? 1u : 4u, preference->values[5]}}, 0, 0, 1.0f, {}};
  bool right =
      preference->values.count(3) && !preference->values[3] && preference->values[1] == 32u << 20;
  return *count = 2, right ? 0 : 7;
}
API cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* algorithm, int which, void* value,
                                         size_t bytes, size_t* written) {
  uint32_t told = which == 2 ? (uint32_t)algorithm->data[1] : 0;
  return memcpy(value, &told, bytes), *written = bytes, 0;
}
API cublasLtMatmulAlgoCheck(void*, Product*, Layout*, Layout*, Layout*, Layout*,
                            const Algorithm* algorithm, Candidate* checked) {
  return *checked = {*algorithm, 0, 0, 1.0f, {}}, 0;
}

static float element(const Layout* layout, const void* matrix, uint64_t row, uint64_t column) {
  uint64_t at = row + column * layout->stride;
  if (layout->type == 0) return ((const float*)matrix)[at];
  uint32_t bits = (uint32_t)((const uint16_t*)matrix)[at] << 16;
  float value;
  return memcpy(&value, &bits, 4), value;
}

static void set_element(const Layout* layout, void* matrix, uint64_t row, uint64_t column, float value) {
  uint64_t at = row + column * layout->stride;
  if (layout->type == 0) return (void)(((float*)matrix)[at] = value);
  uint32_t bits;
  memcpy(&bits, &value, 4);
  // To nearest, ties to even.
  ((uint16_t*)matrix)[at] = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

API cublasLtMatmul(void*, const Product* product, const float* alpha, const void* a,
                   const Layout* a_layout, const void* b, const Layout* b_layout, const float* beta,
                   const void* c, const Layout* c_layout, void* d, const Layout* d_layout,
                   const Algorithm* algorithm, void* workspace, size_t workspace_bytes, void* stream) {
  const int COMPUTE_32F = 68, EXECUTION_FAILED = 13;
  if (!stand_in_usable()) return EXECUTION_FAILED;
  if (product->compute != COMPUTE_32F || algorithm->data[1] != 1 || c != d || c_layout != d_layout)
    return 7;
  if (!stand_in_is_stream(stream) || !stand_in_inside((uint64_t)workspace, workspace_bytes)) return 7;
  uint64_t rows = d_layout->rows, columns = d_layout->columns;
  bool ta = product->transposed[0], tb = product->transposed[1];
  uint64_t k = ta ? a_layout->rows : a_layout->columns;
  if ((ta ? a_layout->columns : a_layout->rows) != rows ||
      (tb ? b_layout->columns : b_layout->rows) != k ||
      (tb ? b_layout->rows : b_layout->columns) != columns)
    return 7;
  for (uint64_t j = 0; j < columns; j++)
    for (uint64_t i = 0; i < rows; i++) {
      float sum = 0;
      for (uint64_t p = 0; p < k; p++)
        sum += (ta ? element(a_layout, a, p, i) : element(a_layout, a, i, p)) *
               (tb ? element(b_layout, b, j, p) : element(b_layout, b, p, j));
      float before = *beta == 0 ? 0 : *beta * element(c_layout, c, i, j);
      set_element(d_layout, d, i, j, *alpha * sum + before);
    }
  // Says which problem the algorithm was chosen for.
  fprintf(stderr, "product with %llu rows by the algorithm for %llu\n", (unsigned long long)columns,
          (unsigned long long)algorithm->data[0]);
  return 0;
}
