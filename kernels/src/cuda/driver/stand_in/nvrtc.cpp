// Stands in for libnvrtc in tests: its machine code is the source and its macros, for the stand-in of libcuda.
#include "stand_in.h"

struct Program {
  std::string source, code;
};

static const char NOTHING[] = "";

// A version that no NVRTC has: what is kept of its code is never taken for another's.
API nvrtcVersion(int* major, int* minor) { return *major = 13, *minor = 99, 0; }
extern "C" __attribute__((visibility("default"))) const char* nvrtcGetErrorString(int) { return "stand-in"; }
API nvrtcCreateProgram(Program** program, const char* source, const char*, int, const char* const*,
                       const char* const*) {
  return *program = new Program{source, {}}, 0;
}
API nvrtcDestroyProgram(Program** program) { return delete *program, *program = nullptr, 0; }
API nvrtcCompileProgram(Program* program, int count, const char* const* options) {
  program->code = CODE;
  for (int i = 0; i < count; i++)
    if (!strncmp(options[i], "-D", 2)) program->code += "'" + std::string(options[i]) + "' ";
  program->code += std::string(1, '\0') + program->source + std::string(1, '\0');
  return 0;
}
API nvrtcGetProgramLogSize(Program*, size_t* bytes) { return *bytes = sizeof NOTHING, 0; }
API nvrtcGetProgramLog(Program*, char* log) { return memcpy(log, NOTHING, sizeof NOTHING), 0; }
API nvrtcGetPTXSize(Program*, size_t* bytes) { return *bytes = sizeof NOTHING, 0; }
API nvrtcGetPTX(Program*, char* ptx) { return memcpy(ptx, NOTHING, sizeof NOTHING), 0; }
API nvrtcGetCUBINSize(Program* program, size_t* bytes) { return *bytes = program->code.size(), 0; }
API nvrtcGetCUBIN(Program* program, char* code) {
  return memcpy(code, program->code.data(), program->code.size()), 0;
}
