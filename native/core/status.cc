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

void ErrorText::append(String text) {
  for (size_t i = 0; i < text.size; ++i) put(text.data[i]);
}

void ErrorText::append(const Part& part) {
  if (part.size == Part::kNumber) return put_number(part.number);
  if (!(part.size & Part::kList)) return append(String{part.text, part.size});
  put('[');
  for (size_t i = 0; i < (part.size & ~Part::kList); ++i) {
    if (i) put(','), put(' ');
    put_number(part.list[i]);
  }
  put(']');
}

void ErrorText::append(const char* format, const Part* parts, size_t count) {
  size_t next = 0;
  for (; *format; ++format) {
    if (*format == '%' && next < count)
      append(parts[next++]);
    else
      put(*format);
  }
  while (next < count) append(parts[next++]);
}

#if defined(ORTOLAN_MESSAGE_CODES)
Status fail_number(ErrorText& error, Status code, uint32_t number) {
  error.clear();
  error.append(Part("message "));
  error.append(Part(number));
  return code;
}
#else
Status fail_parts(ErrorText& error, Status code, const char* format, const Part* parts,
                  size_t count) {
  error.clear();
  error.append(format, parts, count);
  return code;
}
#endif

}  // namespace ortolan
