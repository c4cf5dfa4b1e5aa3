// Comes after the emulation where the stand-in of libcuda launches a kernel: a driver is told where the arguments are,
// and not of what kind.
namespace emulation {

template <class... P, size_t... I>
void launch_pointers(char* error, const Launch& request, void (*kernel)(P...), void* const* values,
                     std::index_sequence<I...>) {
  launch_into(error, request, kernel, *(const std::remove_cv_t<P>*)values[I]...);
}

template <class... P>
void launch_by_driver(char* error, const Launch* request, unsigned, void (*kernel)(P...), const Argument* values,
                      size_t) {
  launch_pointers(error, *request, kernel, (void* const*)values, std::index_sequence_for<P...>());
}

}  // namespace emulation
#define launch_described launch_by_driver
