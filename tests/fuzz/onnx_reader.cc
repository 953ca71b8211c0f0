// The reader of ONNX files and the phases of loading behind it, then a run.
#include "models.h"
#include "wire.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  return wire::mutate(data, size, max_size, seed);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  models::Model model(data, size, models::hash(data, size) % 8);
  if (model.status == ORTOLAN_OK) models::run(model, models::hash(data, size));
  return 0;
}
