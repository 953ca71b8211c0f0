// Sessions: ORT format files that load are run under limits.
#include "flatbuffers.h"
#include "models.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  return flatbuffers::mutate(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  models::Model model(data, size, 0);
  if (model.status == ORTOLAN_OK) models::run(model, models::hash(data, size));
  return 0;
}
