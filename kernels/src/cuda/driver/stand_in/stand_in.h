// What the stand-ins share.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#define API extern "C" __attribute__((visibility("default"))) int

// How the "machine code" of our NVRTC begins; options and source follow, each ended by a zero byte.
constexpr const char* CODE = "\x7f" "ELF of a stand-in\n";

// By libcuda: whether so many bytes from an address are of one allocation; whether the caller has a context whose
// GPU is not lost; whether this is the one stream.
extern "C" __attribute__((visibility("default"))) bool stand_in_inside(uint64_t at, size_t bytes);
extern "C" __attribute__((visibility("default"))) bool stand_in_usable();
extern "C" __attribute__((visibility("default"))) bool stand_in_is_stream(const void* stream);
