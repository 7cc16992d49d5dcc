// What the runner says: a fault of the code it runs is counted and goes on, what it cannot go on
// from ends the process.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace ptx_runner {

[[noreturn, gnu::format(printf, 1, 2)]] inline void Fail(const char* format, ...) {
  std::va_list list;
  va_start(list, format);
  std::fputs("PTX runner: ", stderr);
  std::vfprintf(stderr, format, list);
  std::fputs("\n", stderr);
  va_end(list);
  std::abort();
}

// Faults since the last look, the first few with their words.
struct Faults {
  long count = 0;
  std::vector<std::string> first;

  [[gnu::format(printf, 2, 3)]] void Add(const char* format, ...) {
    constexpr std::size_t kKept = 8;
    ++count;
    if (first.size() >= kKept) return;
    char text[1000];
    std::va_list list;
    va_start(list, format);
    std::vsnprintf(text, sizeof text, format, list);
    va_end(list);
    first.emplace_back(text);
  }
};
inline Faults& faults() {
  static auto* instance = new Faults;
  return *instance;
}

}  // namespace ptx_runner
