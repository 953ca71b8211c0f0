// The reader of ORT format files and the phases of loading behind it.
#include "flatbuffers.h"
#include "models.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  return flatbuffers::mutate(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const size_t kOffsets[] = {0, 4, 1};
  models::Model model(data, size, kOffsets[models::hash(data, size) % 3]);
  return 0;
}
