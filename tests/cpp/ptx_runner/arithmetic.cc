// What PTX's arithmetic instructions compute, as in the manual's sections on each.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>
#include <unordered_map>

#include "ptx.h"

namespace ptx_runner {
namespace {

template <typename T>
T Get(Register r) {
  T value;
  std::memcpy(&value, &r, sizeof(T));
  return value;
}
template <typename T>
Register Put(T value) {
  Register r = 0;
  std::memcpy(&r, &value, sizeof(T));
  return r;
}

using U16 = std::uint16_t;
using U32 = std::uint32_t;
using U64 = std::uint64_t;
using S32 = std::int32_t;
using S64 = std::int64_t;

// One function of one, two or three values of type T, whose result is a To.
template <typename T, auto F>
void Unary(Register* r, const Instruction& i) {
  r[i.to] = Put(F(Get<T>(r[i.from[0]])));
}
template <typename T, auto F>
void Binary(Register* r, const Instruction& i) {
  r[i.to] = Put(F(Get<T>(r[i.from[0]]), Get<T>(r[i.from[1]])));
}
template <typename T, auto F>
void Ternary(Register* r, const Instruction& i) {
  r[i.to] = Put(F(Get<T>(r[i.from[0]]), Get<T>(r[i.from[1]]), Get<T>(r[i.from[2]])));
}

template <typename T>
T Add(T a, T b) {
  return static_cast<T>(a + b);
}
template <typename T>
T Sub(T a, T b) {
  return static_cast<T>(a - b);
}
template <typename T>
T Mul(T a, T b) {
  return static_cast<T>(a * b);
}
// Division by zero is undefined in PTX; all ones is what GPUs give.
template <typename T>
T Div(T a, T b) {
  return b == 0 ? static_cast<T>(-1) : static_cast<T>(a / b);
}
template <typename T>
T Rem(T a, T b) {
  return b == 0 ? a : static_cast<T>(a % b);
}
template <typename T>
T Min(T a, T b) {
  return std::min(a, b);
}
template <typename T>
T Max(T a, T b) {
  return std::max(a, b);
}
// As for floats: the one that is a number.
float MinF(float a, float b) { return std::fmin(a, b); }
float MaxF(float a, float b) { return std::fmax(a, b); }
template <typename T>
T Neg(T a) {
  return static_cast<T>(-a);
}
template <typename T>
T Abs(T a) {
  return std::fabs(a);
}
template <typename T>
T And(T a, T b) {
  return a & b;
}
template <typename T>
T Or(T a, T b) {
  return a | b;
}
template <typename T>
T Xor(T a, T b) {
  return a ^ b;
}
template <typename T>
T Not(T a) {
  return static_cast<T>(~a);
}
bool NotPredicate(bool a) { return !a; }
U32 LeadingZeros(U32 a) { return a == 0 ? 32 : static_cast<U32>(__builtin_clz(a)); }
template <typename T>
T Fma(T a, T b, T c) {
  return std::fma(a, b, c);
}
template <typename T>
T Mad(T a, T b, T c) {
  return static_cast<T>(a * b + c);
}
template <typename T, typename Wide>
void MulWide(Register* r, const Instruction& i) {
  r[i.to] = Put(static_cast<Wide>(Get<T>(r[i.from[0]])) * static_cast<Wide>(Get<T>(r[i.from[1]])));
}
template <typename T, typename Wide>
void MadWide(Register* r, const Instruction& i) {
  r[i.to] = Put(static_cast<Wide>(Get<T>(r[i.from[0]])) * static_cast<Wide>(Get<T>(r[i.from[1]])) +
                Get<Wide>(r[i.from[2]]));
}
U32 MulHi(U32 a, U32 b) { return static_cast<U32>((U64{a} * b) >> 32); }

// Shifts clamp their amount to the width.
template <typename T>
void ShiftLeft(Register* r, const Instruction& i) {
  const auto by = static_cast<U32>(r[i.from[1]]);
  r[i.to] = by >= 8 * sizeof(T) ? 0 : Put(static_cast<T>(Get<T>(r[i.from[0]]) << by));
}
template <typename T>
void ShiftRight(Register* r, const Instruction& i) {
  const auto by = static_cast<U32>(r[i.from[1]]);
  const T a = Get<T>(r[i.from[0]]);
  if (by < 8 * sizeof(T)) {
    r[i.to] = Put(static_cast<T>(a >> by));
  } else {
    r[i.to] = Put(static_cast<T>(a < 0 ? -1 : 0));
  }
}
// bfi: the low `length` bits of a, at `position` in b.
template <typename T>
void InsertBits(Register* r, const Instruction& i) {
  constexpr U32 kBits = 8 * sizeof(T);
  const T a = Get<T>(r[i.from[0]]), b = Get<T>(r[i.from[1]]);
  const U32 position = r[i.from[2]] & 255, length = r[i.from[3]] & 255;
  const T low = length >= kBits ? ~T{0} : (T{1} << length) - 1;
  const T mask = position >= kBits ? T{0} : low << position;
  r[i.to] = Put<T>((b & ~mask) | ((position >= kBits ? T{0} : a << position) & mask));
}
// prmt: each of four bytes picked from eight.
void PermuteBytes(Register* r, const Instruction& i) {
  const U64 bytes = Get<U32>(r[i.from[0]]) | U64{Get<U32>(r[i.from[1]])} << 32;
  const U32 selector = Get<U32>(r[i.from[2]]);
  U32 result = 0;
  for (int b = 0; b < 4; ++b) {
    const U32 s = selector >> (4 * b) & 15;
    U32 byte = bytes >> (8 * (s & 7)) & 255;
    if (s & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << (8 * b);
  }
  r[i.to] = Put(result);
}

template <typename T>
void Move(Register* r, const Instruction& i) {
  r[i.to] = Put(Get<T>(r[i.from[0]]));
}
template <typename T>
void Select(Register* r, const Instruction& i) {
  r[i.to] = Put(Get<T>(r[i.from[2]] & 1 ? r[i.from[0]] : r[i.from[1]]));
}
// mov.b64 {a, b}, c and its like: equal parts, the lowest first.
template <int Bytes>
void Unpack(Register* r, const Instruction& i) {
  const Register value = r[i.from[0]];
  const int part = 8 * Bytes / static_cast<int>(i.vector.size());
  for (std::size_t v = 0; v < i.vector.size(); ++v) {
    const Register mask = part == 64 ? ~Register{0} : (Register{1} << part) - 1;
    r[i.vector[v]] = value >> (part * v) & mask;
  }
}
template <int Bytes>
void Pack(Register* r, const Instruction& i) {
  Register value = 0;
  const int part = 8 * Bytes / static_cast<int>(i.vector.size());
  for (std::size_t v = 0; v < i.vector.size(); ++v) {
    const Register mask = part == 64 ? ~Register{0} : (Register{1} << part) - 1;
    value |= (r[i.vector[v]] & mask) << (part * v);
  }
  r[i.to] = value;
}

template <typename From, typename To>
To Convert(From a) {
  return static_cast<To>(a);
}
float FromHalf(U16 bits) { return static_cast<float>(Get<_Float16>(bits)); }
U16 HalfFromDouble(double a) { return static_cast<U16>(Put(static_cast<_Float16>(a))); }
U16 HalfFromFloat(float a) { return static_cast<U16>(Put(static_cast<_Float16>(a))); }
float FromBfloat16(U16 bits) { return Get<float>(Register{bits} << 16); }
U16 Bfloat16FromFloat(float a) {
  const auto bits = static_cast<U32>(Put(a));
  if (std::isnan(a)) return 0x7fff;
  return static_cast<U16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
// Rounds once: a float on the way keeps in its last bit whether it was rounded ("round to odd").
U16 Bfloat16FromDouble(double a) {
  auto narrow = static_cast<float>(a);
  auto bits = static_cast<U32>(Put(narrow));
  if (std::isfinite(narrow) && static_cast<double>(narrow) != a && !(bits & 1)) {
    bits += std::fabs(static_cast<double>(narrow)) < std::fabs(a) ? 1u : ~0u;
    narrow = Get<float>(bits);
  }
  return Bfloat16FromFloat(narrow);
}
// Rounded towards `Towards`: −∞, ∞ or, for 0, zero.
template <int Towards>
float RoundedFromInt(S32 v) {
  const auto nearest = static_cast<float>(v);
  const double error = static_cast<double>(nearest) - v;
  const bool wrong = Towards < 0   ? error > 0
                     : Towards > 0 ? error < 0
                     : v < 0       ? error < 0
                                   : error > 0;
  const float goal = Towards == 0 ? 0.0f : Towards * std::numeric_limits<float>::infinity();
  return wrong ? std::nextafter(nearest, goal) : nearest;
}
U16 HalfFromInt(S32 v) { return HalfFromDouble(v); }
// cvt of two: the first operand is the upper half.
void Bfloat16Pair(Register* r, const Instruction& i) {
  const Register upper = Bfloat16FromFloat(Get<float>(r[i.from[0]]));
  r[i.to] = upper << 16 | Bfloat16FromFloat(Get<float>(r[i.from[1]]));
}
U16 Bfloat16FromInt(S32 v) { return Bfloat16FromDouble(v); }

// setp: the comparison's name, then its type's. The unordered ones hold for a NaN too.
template <typename T, auto F>
void SetPredicate(Register* r, const Instruction& i) {
  r[i.to] = F(Get<T>(r[i.from[0]]), Get<T>(r[i.from[1]]));
}
template <typename T>
bool Eq(T a, T b) {
  return a == b;
}
template <typename T>
bool Ne(T a, T b) {
  return a < b || a > b;
}
template <typename T>
bool Lt(T a, T b) {
  return a < b;
}
template <typename T>
bool Le(T a, T b) {
  return a <= b;
}
template <typename T>
bool Gt(T a, T b) {
  return a > b;
}
template <typename T>
bool Ge(T a, T b) {
  return a >= b;
}
template <typename T, bool (*F)(T, T)>
bool Negated(T a, T b) {
  return !F(a, b);
}
template <typename T>
bool IsNan(T a, T b) {
  return std::isnan(a) || std::isnan(b);
}

using Table = std::unordered_map<std::string, Arithmetic>;

template <typename T>
void AddComparisons(Table& table, const std::string& type) {
  table["setp.eq." + type] = SetPredicate<T, Eq<T>>;
  table["setp.ne." + type] = SetPredicate<T, Ne<T>>;
  table["setp.lt." + type] = SetPredicate<T, Lt<T>>;
  table["setp.le." + type] = SetPredicate<T, Le<T>>;
  table["setp.gt." + type] = SetPredicate<T, Gt<T>>;
  table["setp.ge." + type] = SetPredicate<T, Ge<T>>;
  if constexpr (std::is_floating_point_v<T>) {
    table["setp.neu." + type] = SetPredicate<T, Negated<T, Eq<T>>>;
    table["setp.ltu." + type] = SetPredicate<T, Negated<T, Ge<T>>>;
    table["setp.leu." + type] = SetPredicate<T, Negated<T, Gt<T>>>;
    table["setp.gtu." + type] = SetPredicate<T, Negated<T, Le<T>>>;
    table["setp.geu." + type] = SetPredicate<T, Negated<T, Lt<T>>>;
    table["setp.nan." + type] = SetPredicate<T, IsNan<T>>;
  }
}

template <typename T>
void AddIntegers(Table& table, const std::string& type) {
  table["add." + type] = Binary<T, Add<T>>;
  table["sub." + type] = Binary<T, Sub<T>>;
  table["mul.lo." + type] = Binary<T, Mul<T>>;
  table["mad.lo." + type] = Ternary<T, Mad<T>>;
  table["div." + type] = Binary<T, Div<T>>;
  table["rem." + type] = Binary<T, Rem<T>>;
  table["min." + type] = Binary<T, Min<T>>;
  table["max." + type] = Binary<T, Max<T>>;
  table["neg." + type] = Unary<T, Neg<T>>;
  table["shr." + type] = ShiftRight<T>;
  AddComparisons<T>(table, type);
}

template <typename T>
void AddBits(Table& table, const std::string& type) {
  table["and." + type] = Binary<T, And<T>>;
  table["or." + type] = Binary<T, Or<T>>;
  table["xor." + type] = Binary<T, Xor<T>>;
  table["not." + type] = Unary<T, Not<T>>;
  table["shl." + type] = ShiftLeft<T>;
  table["shr." + type] = ShiftRight<T>;
  for (const char kind : {'b', 'u', 's'}) {
    const std::string same = kind + type.substr(1);
    table["mov." + same] = Move<T>;
    table["selp." + same] = Select<T>;
  }
  AddComparisons<T>(table, type);
}

template <typename T>
void AddFloats(Table& table, const std::string& type) {
  for (const char* rounding : {".", ".rn."}) {
    table["add" + (rounding + type)] = Binary<T, Add<T>>;
    table["sub" + (rounding + type)] = Binary<T, Sub<T>>;
    table["mul" + (rounding + type)] = Binary<T, Mul<T>>;
    table["fma" + (rounding + type)] = Ternary<T, Fma<T>>;
  }
  table["neg." + type] = Unary<T, Neg<T>>;
  table["abs." + type] = Unary<T, Abs<T>>;
  table["mov." + type] = Move<T>;
  table["selp." + type] = Select<T>;
  AddComparisons<T>(table, type);
}

Table MakeTable() {
  Table t;
  AddIntegers<std::int16_t>(t, "s16");
  AddIntegers<U16>(t, "u16");
  AddIntegers<S32>(t, "s32");
  AddIntegers<U32>(t, "u32");
  AddIntegers<S64>(t, "s64");
  AddIntegers<U64>(t, "u64");
  AddBits<U16>(t, "b16");
  AddBits<U32>(t, "b32");
  AddBits<U64>(t, "b64");
  AddFloats<float>(t, "f32");
  AddFloats<double>(t, "f64");
  t["min.f32"] = Binary<float, MinF>;
  t["max.f32"] = Binary<float, MaxF>;
  t["and.pred"] = Binary<bool, And<bool>>;
  t["or.pred"] = Binary<bool, Or<bool>>;
  t["xor.pred"] = Binary<bool, Xor<bool>>;
  t["not.pred"] = Unary<bool, NotPredicate>;
  t["clz.b32"] = Unary<U32, LeadingZeros>;
  t["mov.pred"] = Move<bool>;
  t["mul.wide.s32"] = MulWide<S32, S64>;
  t["mul.wide.u32"] = MulWide<U32, U64>;
  t["mul.wide.u16"] = MulWide<U16, U32>;
  t["mul.wide.s16"] = MulWide<std::int16_t, S32>;
  t["mad.wide.s32"] = MadWide<S32, S64>;
  t["mad.wide.u32"] = MadWide<U32, U64>;
  t["mul.hi.u32"] = Binary<U32, MulHi>;
  t["bfi.b32"] = InsertBits<U32>;
  t["bfi.b64"] = InsertBits<U64>;
  t["prmt.b32"] = PermuteBytes;
  t["unpack.b64"] = Unpack<8>;
  t["unpack.b32"] = Unpack<4>;
  t["pack.b64"] = Pack<8>;
  t["pack.b32"] = Pack<4>;
  t["cvt.f64.f32"] = Unary<float, Convert<float, double>>;
  t["cvt.rn.f32.f64"] = Unary<double, Convert<double, float>>;
  t["cvt.u32.u64"] = Unary<U64, Convert<U64, U32>>;
  t["cvt.u64.u32"] = Unary<U32, Convert<U32, U64>>;
  t["cvt.s64.s32"] = Unary<S32, Convert<S32, S64>>;
  t["cvt.u16.u32"] = Unary<U32, Convert<U32, U16>>;
  t["cvt.u16.u64"] = Unary<U64, Convert<U64, U16>>;
  t["cvt.u32.u16"] = Unary<U16, Convert<U16, U32>>;
  t["cvt.u64.u16"] = Unary<U16, Convert<U16, U64>>;
  t["cvt.f32.f16"] = Unary<U16, FromHalf>;
  t["cvt.f32.bf16"] = Unary<U16, FromBfloat16>;
  t["cvt.rm.f32.s32"] = Unary<S32, RoundedFromInt<-1>>;
  t["cvt.rp.f32.s32"] = Unary<S32, RoundedFromInt<1>>;
  t["cvt.rz.f32.s32"] = Unary<S32, RoundedFromInt<0>>;
  t["cvt.rn.f16.s32"] = Unary<S32, HalfFromInt>;
  t["cvt.rn.bf16.s32"] = Unary<S32, Bfloat16FromInt>;
  t["cvt.rn.f16.f32"] = Unary<float, HalfFromFloat>;
  t["cvt.rn.f16.f64"] = Unary<double, HalfFromDouble>;
  t["cvt.rn.bf16x2.f32"] = Bfloat16Pair;
  t["cvt.rn.bf16.f32"] = Unary<float, Bfloat16FromFloat>;
  t["cvt.rn.bf16.f64"] = Unary<double, Bfloat16FromDouble>;
  // Global memory is the process's own, and an address in shared memory the offset in its window.
  t["cvta.to.global.u64"] = Move<U64>;
  return t;
}

}  // namespace

Arithmetic FindArithmetic(const std::string& opcode) {
  static const Table table = MakeTable();
  const auto found = table.find(opcode);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace ptx_runner
