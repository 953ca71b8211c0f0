#include "core/status.h"

namespace ortolan {

void ErrorText::put_number(int64_t value) {
  char digits[20];
  int n = 0;
  uint64_t rest = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  do digits[n++] = static_cast<char>('0' + rest % 10);
  while ((rest /= 10) != 0);
  if (value < 0) put('-');
  while (n) put(digits[--n]);
}

void ErrorText::append(const Part& part) {
  switch (part.kind) {
    case Part::kText:
      for (size_t i = 0; i < part.text.size; ++i) put(part.text.data[i]);
      break;
    case Part::kNumber:
      put_number(part.number);
      break;
    case Part::kNumbers:
      put('[');
      for (size_t i = 0; i < part.numbers.size; ++i) {
        if (i) put(','), put(' ');
        put_number(part.numbers[i]);
      }
      put(']');
      break;
  }
}

}  // namespace ortolan
