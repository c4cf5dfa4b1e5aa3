// Stands in for libcuda and libcublasLt in a test: the functions that the real driver code calls, by
// their published signatures, on host memory. It runs no kernel but three that it knows by name, and it
// is strict: a call without a current context, an unknown handle, or freed memory is an error of its
// own.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

enum {
  OK = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  INVALID_CONTEXT = 201,
  NOT_FOUND = 500,
  ILLEGAL_ADDRESS = 700
};
constexpr size_t MEMORY = 64 << 20;

static thread_local void* current;
static int context_storage, stream_storage, sticky;
static std::map<uint64_t, size_t> memory;
static size_t used;
static std::map<void*, std::map<int, int>> attributes;
static std::set<std::string> names;

#define API extern "C" __attribute__((visibility("default"))) int
#define ENTER                                              \
  if (current != &context_storage) return INVALID_CONTEXT; \
  if (sticky) return sticky;

static bool inside(uint64_t at, size_t bytes) {
  auto next = memory.upper_bound(at);
  if (next == memory.begin()) return false;
  auto [start, size] = *--next;
  return at + bytes <= start + size;
}

API cuInit(unsigned) { return OK; }
// NVRTC asks the driver for its cache of compilations, and goes on without.
API cuGetExportTable(const void**, const void*) { return NOT_FOUND; }
API cuDriverGetVersion(int* version) { return *version = 13000, OK; }
API cuDeviceGetCount(int* count) { return *count = 1, OK; }
API cuDeviceGet(int* device, int ordinal) {
  return *device = 40 + ordinal, ordinal ? INVALID_VALUE : OK;
}
API cuDeviceGetName(char* name, int room, int) { return snprintf(name, room, "a stand-in"), OK; }
API cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = MEMORY, OK; }
API cuDeviceGetAttribute(int* value, int which, int device) {
  if (device != 40) return INVALID_VALUE;
  switch (which) {
    case 75:
      return *value = 9, OK;
    case 76:
      return *value = 0, OK;
    case 16:
      return *value = 132, OK;
    case 97:
      return *value = 227 << 10, OK;
  }
  return INVALID_VALUE;
}
API cuDevicePrimaryCtxRetain(void** context, int) { return *context = &context_storage, OK; }
API cuDevicePrimaryCtxRelease_v2(int) {
  fprintf(stderr, "released with %zu allocations\n", memory.size());
  return OK;
}
API cuCtxSetCurrent(void* context) { return current = context, OK; }
API cuStreamCreate(void** stream, unsigned flags) {
  return *stream = &stream_storage, flags == 1 ? OK : INVALID_VALUE;
}
API cuStreamSynchronize(void* stream) {
  ENTER
  return stream == &stream_storage ? OK : INVALID_VALUE;
}
API cuStreamDestroy_v2(void*) { return OK; }

API cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  ENTER
  if (used + bytes > MEMORY) return OUT_OF_MEMORY;
  *address = (uint64_t)aligned_alloc(256, (bytes + 255) / 256 * 256);
  memory[*address] = bytes;
  used += bytes;
  return OK;
}
API cuMemFree_v2(uint64_t address) {
  ENTER
  if (!memory.count(address)) return INVALID_VALUE;
  used -= memory[address];
  memory.erase(address);
  free((void*)address);
  return OK;
}
API cuMemGetInfo_v2(size_t* left, size_t* all) {
  ENTER
  return *left = MEMORY - used, *all = MEMORY, OK;
}
API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
  ENTER
  return inside(to, bytes) ? memcpy((void*)to, from, bytes), OK : INVALID_VALUE;
}
API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
  ENTER
  return inside(from, bytes) ? memcpy(to, (void*)from, bytes), OK : INVALID_VALUE;
}
API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
  ENTER
  return inside(to, bytes) && inside(from, bytes) ? memmove((void*)to, (void*)from, bytes),
         OK                                       : INVALID_VALUE;
}
API cuMemsetD8Async(uint64_t to, unsigned char byte, size_t bytes, void*) {
  ENTER
  return inside(to, bytes) ? memset((void*)to, byte, bytes), OK : INVALID_VALUE;
}

API cuModuleLoadData(void** module, const void* image) {
  ENTER
  if (memcmp(image,
             "\x7f"
             "ELF",
             4))
    return INVALID_VALUE;
  return *module = malloc(1), OK;
}
API cuModuleUnload(void* module) { return free(module), OK; }
API cuModuleGetFunction(void** function, void*, const char* name) {
  ENTER
  return *function = (void*)names.insert(name).first->c_str(), OK;
}
API cuFuncGetAttribute(int* value, int which, void*) {
  return *value = 1000, which == 1 ? OK : INVALID_VALUE;
}
API cuFuncSetAttribute(void* function, int which, int value) {
  return attributes[function][which] = value, OK;
}

struct Attribute {
  int id;
  char pad[4];
  union {
    char bytes[64];
    unsigned cluster[3];
  };
};
struct Config {
  unsigned grid[3], block[3], shared_bytes;
  void* stream;
  Attribute* attributes;
  unsigned count;
};

API cuLaunchKernelEx(const Config* config, void* function, void** arguments, void** extra) {
  ENTER
  if (config->stream != &stream_storage || extra) return INVALID_VALUE;
  std::string name = (const char*)function;
  if (name == "fill_4") {
    uint64_t to = *(uint64_t*)arguments[0], length = *(uint64_t*)arguments[2];
    if (!inside(to, 4 * length)) return sticky = ILLEGAL_ADDRESS;
    for (uint64_t i = 0; i < length; i++) ((uint32_t*)to)[i] = *(uint32_t*)arguments[1];
    return OK;
  }
  if (name == "tell_launch") {
    unsigned cluster =
        config->count == 1 && config->attributes[0].id == 4 ? config->attributes[0].cluster[0] : 0;
    unsigned told[] = {config->grid[0] * config->grid[1] * config->grid[2],
                       config->block[0],
                       config->block[1],
                       cluster,
                       config->shared_bytes,
                       (unsigned)attributes[function][8],
                       (unsigned)attributes[function][14]};
    memcpy(*(void**)arguments[0], told, sizeof told);
    return OK;
  }
  if (name == "breaks") return sticky = ILLEGAL_ADDRESS, OK;
  return NOT_FOUND;
}

API cuEventCreate(void** event, unsigned) { return *event = malloc(1), OK; }
API cuEventRecord(void*, void* stream) { return stream == &stream_storage ? OK : INVALID_VALUE; }
API cuEventSynchronize(void*) { return OK; }
API cuEventElapsedTime_v2(float* millis, void*, void*) { return *millis = 2.5f, OK; }
API cuEventDestroy_v2(void* event) { return free(event), OK; }

// ---- cublasLt: column-major products of f32 and bf16

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
API cublasLtCreate(void** handle) { return *handle = malloc(1), current == &context_storage ? 0 : 1; }
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

API cublasLtMatmul(void*, const Product* product, const float* alpha, const void* a,
                   const Layout* a_layout, const void* b, const Layout* b_layout, const float* beta,
                   const void* c, const Layout* c_layout, void* d, const Layout* d_layout,
                   const Algorithm* algorithm, void* workspace, size_t workspace_bytes, void* stream) {
  const int COMPUTE_32F = 68;
  if (product->compute != COMPUTE_32F || algorithm->data[1] != 1 || c != d || c_layout != d_layout)
    return 7;
  if (stream != &stream_storage || !inside((uint64_t)workspace, workspace_bytes)) return 7;
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
      ((float*)d)[i + j * d_layout->stride] = *alpha * sum + before;
    }
  // Says which problem the algorithm was chosen for.
  fprintf(stderr, "product with %llu rows by the algorithm for %llu\n", (unsigned long long)columns,
          (unsigned long long)algorithm->data[0]);
  return 0;
}
