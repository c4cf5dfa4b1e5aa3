// Stands in for libcuda in tests: the functions that the real driver code calls, by their published signatures, on
// host memory. It is strict: a call without a current context, an unknown handle, or freed memory is an error of its
// own. Kernels come from the stand-in of NVRTC as sources; the one that is launched first makes the C++ compiler
// (COMPILE) build its module over the emulation (EMULATION), into a file that later processes find (in KERNELS).
//
// On standard error it says "opened" and "released"; with STAND_IN_TRACE also what is launched. STAND_IN_INJECT is a
// list like "fault:adamw,hang:swiglu,exit:fill_4": a kernel that breaks the GPU, one that never ends, and one whose
// launch ends the process.
#include <dlfcn.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <mutex>

#include "stand_in.h"

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
static bool hung;
static std::recursive_mutex lock;
static std::map<uint64_t, size_t> memory;
static size_t used;
static std::map<void*, std::map<int, int>> attributes;

#define ENTER                                              \
  std::lock_guard guard(lock);                             \
  if (current != &context_storage) return INVALID_CONTEXT; \
  if (sticky) return sticky;

extern "C" bool stand_in_inside(uint64_t at, size_t bytes) {
  std::lock_guard guard(lock);
  auto next = memory.upper_bound(at);
  if (next == memory.begin()) return false;
  auto [start, size] = *--next;
  return at + bytes <= start + size;
}

static bool inside(uint64_t at, size_t bytes) { return stand_in_inside(at, bytes); }
extern "C" bool stand_in_usable() { return current == &context_storage && !sticky; }
extern "C" bool stand_in_is_stream(const void* stream) { return stream == &stream_storage; }

// Whether `kernel` is in STAND_IN_INJECT with this fate.
static bool injected(const char* fate, const std::string& kernel) {
  const char* list = getenv("STAND_IN_INJECT");
  return list && ("," + std::string(list) + ",").find("," + std::string(fate) + ":" + kernel + ",") !=
                     std::string::npos;
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
API cuDevicePrimaryCtxRetain(void** context, int) {
  fprintf(stderr, "opened\n");
  return *context = &context_storage, OK;
}
API cuDevicePrimaryCtxRelease_v2(int) {
  fprintf(stderr, "released with %zu allocations\n", memory.size());
  return OK;
}
API cuCtxSetCurrent(void* context) { return current = context, OK; }
API cuStreamCreate(void** stream, unsigned flags) {
  return *stream = &stream_storage, flags == 1 ? OK : INVALID_VALUE;
}
API cuStreamSynchronize(void* stream) {
  while (hung) pause();
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

// How the emulation's own launch of a kernel is called; see driver_launch.h.
struct EmulatedLaunch {
  uint32_t grid, block, cluster, shared_bytes;
  uint64_t seed;
};
typedef void (*Entry)(char* error, const EmulatedLaunch*, void* const* arguments, size_t);

struct Module {
  std::string options, source;
  void* library;
};
struct Function {
  std::string name;
  Module* module;
  Entry entry;
};

// The module's library, built unless a process before this one did.
static void* library_of(Module* module) {
  if (module->library) return module->library;
  uint64_t hash = 14695981039346656037ull;
  for (unsigned char c : EMULATION + module->options + module->source) hash = (hash ^ c) * 1099511628211ull;
  char name[40];
  snprintf(name, sizeof name, "/%016llx", (unsigned long long)hash);
  std::string path = KERNELS + name + ".so";
  if (access(path.c_str(), R_OK)) {
    std::string unique = KERNELS + name + "-" + std::to_string(getpid());
    std::ofstream(unique + ".cpp") << module->source;
    std::string command = COMPILE + " -include '" + KERNELS + "/emulation.h' -x c++ " + module->options + "'" +
                          unique + ".cpp' -o '" + unique + ".so'";
    bool built = !system(command.c_str());
    unlink((unique + ".cpp").c_str());
    if (!built || rename((unique + ".so").c_str(), path.c_str())) return nullptr;
  }
  if (!(module->library = dlopen(path.c_str(), RTLD_NOW))) fprintf(stderr, "stand-in: %s\n", dlerror());
  return module->library;
}

API cuModuleLoadData(void** module, const void* image) {
  ENTER
  const char* text = (const char*)image;
  if (strncmp(text, CODE, strlen(CODE))) return INVALID_VALUE;
  const char* options = text + strlen(CODE);
  return *module = new Module{options, options + strlen(options) + 1, nullptr}, OK;
}
API cuModuleUnload(void* module) { return delete (Module*)module, OK; }
API cuModuleGetFunction(void** function, void* module, const char* name) {
  ENTER
  return *function = new Function{name, (Module*)module, nullptr}, OK;
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
  Function* kernel = (Function*)function;
  const std::string& name = kernel->name;
  if (getenv("STAND_IN_TRACE")) fprintf(stderr, "launched %s\n", name.c_str());
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
  // As on a GPU, what is queued goes wrong later: at the next wait.
  if (name == "breaks" || injected("fault", name)) return sticky = ILLEGAL_ADDRESS, OK;
  if (injected("hang", name)) return hung = true, OK;
  if (injected("exit", name)) {
    fprintf(stderr, "the process ends at the launch of %s\n", name.c_str());
    _exit(3);
  }
  if (!kernel->entry) {
    void* library = library_of(kernel->module);
    if (library) kernel->entry = (Entry)dlsym(library, ("launch_" + name).c_str());
    if (!kernel->entry) return NOT_FOUND;
  }
  unsigned cluster = config->count ? config->attributes[0].cluster[0] : 1;
  EmulatedLaunch launch = {config->grid[0], config->block[0], cluster, config->shared_bytes, 1};
  char error[512] = {};
  kernel->entry(error, &launch, arguments, 0);
  if (error[0]) fprintf(stderr, "stand-in: kernel %s: %s\n", name.c_str(), error), sticky = ILLEGAL_ADDRESS;
  return OK;
}

API cuEventCreate(void** event, unsigned) { return *event = malloc(1), OK; }
API cuEventRecord(void*, void* stream) {
  ENTER
  return stream == &stream_storage ? OK : INVALID_VALUE;
}
API cuEventSynchronize(void*) {
  while (hung) pause();
  ENTER
  return OK;
}
API cuEventElapsedTime_v2(float* millis, void*, void*) { return *millis = 2.5f, OK; }
API cuEventDestroy_v2(void* event) { return free(event), OK; }

