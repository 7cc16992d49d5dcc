#include "ptx.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <unordered_map>

#include "report.h"

namespace ptx_runner {
namespace {

std::string Trim(const std::string& s) {
  const std::size_t first = s.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return "";
  return s.substr(first, s.find_last_not_of(" \t\r\n") - first + 1);
}

// At commas outside of brackets.
std::vector<std::string> SplitOperands(const std::string& s) {
  std::vector<std::string> parts;
  std::string part;
  int depth = 0;
  for (const char c : s) {
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    if (c == ',' && depth == 0) {
      parts.push_back(Trim(part));
      part.clear();
    } else {
      part += c;
    }
  }
  if (!Trim(part).empty()) parts.push_back(Trim(part));
  return parts;
}

std::vector<std::string> SplitDots(const std::string& s) {
  std::vector<std::string> parts;
  std::stringstream stream(s);
  for (std::string part; std::getline(stream, part, '.');) parts.push_back(part);
  return parts;
}

std::string Inside(const std::string& bracketed) {
  return bracketed.substr(1, bracketed.size() - 2);
}

int BytesOf(const std::string& type) { return std::atoi(type.c_str() + 1) / 8; }

// One .entry of a file.
class Parser {
 public:
  Parser(std::string name, const std::set<std::string>& shared_symbols)
      : kernel_(std::make_unique<Kernel>()), shared_symbols_(shared_symbols) {
    kernel_->name = std::move(name);
  }

  // ".param .align 8 .b8 name[200]" or ".param .u64 name".
  void AddParameter(std::string text) {
    if (text.back() == ',') text.pop_back();
    const auto number_behind = [&text](const char* what) {
      const std::size_t at = text.find(what);
      return at == std::string::npos ? 0 : std::atoi(text.c_str() + at + std::strlen(what));
    };
    Parameter parameter;
    parameter.bytes = number_behind("[");
    const std::string declared = Trim(text.substr(0, text.find('[')));
    const std::string name = declared.substr(declared.find_last_of(" \t") + 1);
    if (parameter.bytes == 0) {
      std::stringstream words(text);
      std::string word, type;
      words >> word >> type;
      parameter.bytes = BytesOf(type.substr(1));
    }
    const int align = number_behind(".align ") ? number_behind(".align ") : parameter.bytes;
    parameter.offset = (kernel_->parameter_bytes + align - 1) / align * align;
    kernel_->parameter_bytes = parameter.offset + parameter.bytes;
    parameter.address = NewRegister();
    names_[name] = parameter.address;
    kernel_->parameters.push_back(parameter);
  }

  void SetMaxThreads(int threads) { kernel_->max_threads = threads; }

  void AddLabel(const std::string& label) {
    labels_[label] = static_cast<std::uint32_t>(kernel_->code.size());
  }

  // ".reg .b32 %r<5>" or, in inline assembly, ".reg .b32 a, b".
  void AddRegisters(std::string declaration) {
    std::replace(declaration.begin(), declaration.end(), ',', ' ');
    std::stringstream words(declaration);
    std::string word, type, name;
    words >> word >> type >> name;
    const std::size_t range = name.find('<');
    if (range == std::string::npos) {
      do {
        names_[name] = NewRegister();  // a later one of the same name is another
      } while (words >> name);
      return;
    }
    ranges_[name.substr(0, range)] = kernel_->registers;
    kernel_->registers += static_cast<std::uint32_t>(std::atoi(name.c_str() + range + 1));
  }

  void AddStatement(std::string text, int line);

  std::unique_ptr<Kernel> Finish() {
    for (const auto& [at, label] : branches_) {
      if (labels_.count(label) == 0) Fail("%s: no label %s", kernel_->name.c_str(), label.c_str());
      kernel_->code[at].target = labels_[label];
    }
    Instruction last;
    last.kind = Kind::kReturn;
    last.text = "ret";
    kernel_->code.push_back(last);
    return std::move(kernel_);
  }

 private:
  std::uint32_t NewRegister() { return kernel_->registers++; }

  std::uint32_t Constant(Register value) {
    const auto [found, is_new] = constants_.emplace(value, 0);
    if (is_new) {
      found->second = NewRegister();
      kernel_->constants.emplace_back(found->second, value);
    }
    return found->second;
  }

  std::uint32_t Operand(const std::string& o) {
    if (o.empty()) Fail("%s: an empty operand", kernel_->name.c_str());
    if (const auto named = names_.find(o); named != names_.end()) return named->second;
    if (o[0] == '%') {
      const std::size_t digits = o.find_first_of("0123456789");
      const auto range = ranges_.find(o.substr(0, digits));
      if (digits != std::string::npos && range != ranges_.end()) {
        return range->second + static_cast<std::uint32_t>(std::atoi(o.c_str() + digits));
      }
      const auto [special, is_new] = kernel_->special.emplace(o, 0);
      if (is_new) special->second = NewRegister();
      return special->second;
    }
    if (o.compare(0, 2, "0f") == 0 || o.compare(0, 2, "0d") == 0 || o.compare(0, 2, "0F") == 0 ||
        o.compare(0, 2, "0D") == 0) {
      return Constant(std::strtoull(o.c_str() + 2, nullptr, 16));
    }
    if (std::isdigit(static_cast<unsigned char>(o[0])) || o[0] == '-') {
      return Constant(static_cast<Register>(std::strtoll(o.c_str(), nullptr, 0)));
    }
    if (shared_symbols_.count(o)) return Constant(kSharedBase);
    Fail("%s: unknown operand '%s'", kernel_->name.c_str(), o.c_str());
  }

  // "[%rd1+16]"
  void Address(const std::string& bracketed, Instruction* i) {
    const std::string inside = Inside(bracketed);
    const std::size_t sign = inside.find_first_of("+-", 1);
    i->from[0] = Operand(Trim(inside.substr(0, sign)));
    if (sign == std::string::npos) return;
    i->offset = std::atoll(inside.c_str() + sign + (inside[sign] == '+' ? 1 : 0));
  }

  void Vector(const std::string& operand, Instruction* i) {
    if (operand[0] != '{') {
      i->vector = {Operand(operand)};
      return;
    }
    for (const std::string& o : SplitOperands(Inside(operand))) i->vector.push_back(Operand(o));
  }

  bool ParseArithmetic(const std::string& opcode, const std::vector<std::string>& o,
                       Instruction* i);
  bool ParseMemory(const std::vector<std::string>& part, const std::vector<std::string>& o,
                   Instruction* i);
  bool ParseControl(const std::string& opcode, const std::vector<std::string>& o, Instruction* i);
  bool ParseMatrix(const std::string& opcode, const std::vector<std::string>& o, Instruction* i);
  bool ParseAsync(const std::string& opcode, const std::vector<std::string>& o, Instruction* i);

  std::unique_ptr<Kernel> kernel_;
  const std::set<std::string>& shared_symbols_;
  std::unordered_map<std::string, std::uint32_t> ranges_, names_, labels_;
  std::unordered_map<Register, std::uint32_t> constants_;
  std::vector<std::pair<std::size_t, std::string>> branches_;
};

bool Parser::ParseArithmetic(const std::string& opcode, const std::vector<std::string>& o,
                             Instruction* i) {
  const bool move = opcode.compare(0, 4, "mov.") == 0;
  if (move && o[0][0] == '{') {
    i->compute = FindArithmetic("unpack" + opcode.substr(3));
    Vector(o[0], i);
    i->from[0] = Operand(o[1]);
    return i->compute != nullptr;
  }
  if (move && o[1][0] == '{') {
    i->compute = FindArithmetic("pack" + opcode.substr(3));
    Vector(o[1], i);
    i->to = Operand(o[0]);
    return i->compute != nullptr;
  }
  i->compute = FindArithmetic(opcode);
  if (i->compute == nullptr) return false;
  i->to = Operand(o[0]);
  for (std::size_t at = 1; at < o.size(); ++at) i->from[at - 1] = Operand(o[at]);
  return true;
}

// ld and st: of parameters, global and shared memory; hints for the caches mean nothing here, but
// that .cg does not look into L1.
bool Parser::ParseMemory(const std::vector<std::string>& part, const std::vector<std::string>& o,
                         Instruction* i) {
  if (part[0] != "ld" && part[0] != "st") return false;
  const bool store = part[0] == "st";
  std::string space;
  for (std::size_t at = 1; at + 1 < part.size(); ++at) {
    const std::string& p = part[at];
    if (p == "param" || p == "global" || p == "shared") {
      space = p;
    } else if (p == "volatile") {
      i->is_volatile = true;
    } else if (p == "cg") {
      i->past_l1 = true;
    } else if (p != "nc" && p != "cs" && p != "v2" && p != "v4" && p != "L1::no_allocate" &&
               p != "L1::" && p != "no_allocate") {
      return false;
    }
  }
  i->bytes = static_cast<std::uint8_t>(BytesOf(part.back()));
  Address(o[store ? 1 : 0][0] == '[' ? o[store ? 1 : 0] : o[store ? 0 : 1], i);
  Vector(store ? o[1] : o[0], i);
  if (space == "param" && !store) {
    i->kind = Kind::kLoadParameter;
  } else if (space == "shared") {
    i->kind = store ? Kind::kStoreShared : Kind::kLoadShared;
  } else if (space == "global") {
    i->kind = store ? Kind::kStoreGlobal : Kind::kLoadGlobal;
  } else {
    return false;
  }
  return true;
}

bool Parser::ParseControl(const std::string& opcode, const std::vector<std::string>& o,
                          Instruction* i) {
  if (opcode == "bra" || opcode == "bra.uni") {
    i->kind = Kind::kBranch;
    branches_.emplace_back(kernel_->code.size(), o[0]);
  } else if (opcode == "ret" || opcode == "exit") {
    i->kind = Kind::kReturn;
  } else if (opcode == "trap") {
    i->kind = Kind::kTrap;
  } else if (opcode == "bar.sync" || opcode == "barrier.sync") {
    i->kind = Kind::kBarrier;
    i->operands = static_cast<std::uint8_t>(o.size());
    for (std::size_t at = 0; at < o.size(); ++at) i->from[at] = Operand(o[at]);
  } else if (opcode == "shfl.sync.bfly.b32" || opcode == "shfl.sync.idx.b32") {
    i->kind = Kind::kShuffle;
    i->by_index = opcode == "shfl.sync.idx.b32";
    const std::size_t bar = o[0].find('|');
    i->vector = {Operand(Trim(o[0].substr(0, bar)))};
    if (bar != std::string::npos) i->vector.push_back(Operand(Trim(o[0].substr(bar + 1))));
    for (int at = 0; at < 4; ++at) i->from[at] = Operand(o[at + 1]);
  } else if (opcode == "vote.sync.any.pred") {
    i->kind = Kind::kVote;
    i->vector = {Operand(o[0])};
    i->from[0] = Operand(o[1]);
    i->from[3] = Operand(o[2]);
  } else if (opcode == "bar.warp.sync") {
    i->kind = Kind::kSyncWarp;
    i->from[3] = Operand(o[0]);
  } else if (opcode == "membar.gl" || opcode == "fence.acq_rel.gpu") {
    i->kind = Kind::kFence;
  } else if (opcode == "nanosleep.u32") {
    i->kind = Kind::kSleep;
  } else if (opcode == "atom.global.add.u32" || opcode == "atom.relaxed.gpu.global.add.u32") {
    i->kind = Kind::kAtomicAdd;
    i->to = Operand(o[0]);
    Address(o[1], i);
    i->from[1] = Operand(o[2]);
  } else {
    return false;
  }
  return true;
}

bool Parser::ParseMatrix(const std::string& opcode, const std::vector<std::string>& o,
                         Instruction* i) {
  const std::size_t dot = opcode.find(".m8n8.x");
  if (opcode.compare(0, 8, "ldmatrix") == 0 && dot != std::string::npos) {
    const std::string rest = opcode.substr(dot + 8);
    i->kind = Kind::kLoadMatrix;
    i->transposed = rest == ".trans.shared.b16";
    Vector(o[0], i);
    Address(o[1], i);
    return (i->transposed || rest == ".shared.b16") &&
           i->vector.size() == static_cast<std::size_t>(opcode[dot + 7] - '0');
  }
  if (opcode != "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32") return false;
  i->kind = Kind::kMultiply;
  for (const std::string& operand : o) Vector(operand, i);
  return i->vector.size() == 4 + 4 + 2 + 4;
}

bool Parser::ParseAsync(const std::string& opcode, const std::vector<std::string>& o,
                        Instruction* i) {
  const auto addresses = [&](Kind kind, std::initializer_list<int> which) {
    i->kind = kind;
    int at = 0;
    for (const int w : which) {
      i->from[at++] = Operand(o[w][0] == '[' ? Inside(o[w]) : o[w]);
    }
  };
  if (opcode == "cp.async.ca.shared.global" || opcode == "cp.async.cg.shared.global") {
    i->kind = Kind::kCopyAsync;
    Address(o[0], i);
    i->from[1] = Operand(Inside(o[1]));
    i->bytes = static_cast<std::uint8_t>(std::atoi(o[2].c_str()));
    return i->bytes == 4 || i->bytes == 8 || i->bytes == 16;
  }
  if (opcode == "cp.async.commit_group") {
    i->kind = Kind::kCommitCopies;
  } else if (opcode == "cp.async.wait_group") {
    i->kind = Kind::kAwaitCopies;
    i->offset = std::atoll(o[0].c_str());
  } else if (opcode == "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes") {
    addresses(Kind::kCopyBulk, {0, 1, 2, 3});
  } else if (opcode == "mbarrier.init.shared::cta.b64") {
    addresses(Kind::kInitBarrier, {0, 1});
  } else if (opcode == "mbarrier.arrive.expect_tx.shared::cta.b64" && o[0] == "_") {
    addresses(Kind::kExpectBytes, {1, 2});
  } else if (opcode == "mbarrier.try_wait.parity.shared::cta.b64") {
    addresses(Kind::kTryWait, {1, 2});
    i->to = Operand(o[0]);
  } else if (opcode == "fence.proxy.async.shared::cta") {
    i->kind = Kind::kProxyFence;
  } else if (opcode == "fence.mbarrier_init.release.cluster") {
    i->kind = Kind::kFence;
  } else {
    return false;
  }
  return true;
}

void Parser::AddStatement(std::string text, int line) {
  Instruction i;
  i.line = line;
  i.text = text;
  if (text[0] == '@') {
    const std::size_t space = text.find_first_of(" \t");
    i.guarded = true;
    i.guard_negated = text[1] == '!';
    i.guard = Operand(text.substr(i.guard_negated ? 2 : 1, space - (i.guard_negated ? 2 : 1)));
    text = Trim(text.substr(space));
  }
  const std::size_t space = text.find_first_of(" \t");
  const std::string opcode = text.substr(0, space);
  const std::vector<std::string> operands =
      SplitOperands(space == std::string::npos ? "" : text.substr(space));
  const bool known = ParseMemory(SplitDots(opcode), operands, &i) ||
                     ParseControl(opcode, operands, &i) || ParseAsync(opcode, operands, &i) ||
                     ParseMatrix(opcode, operands, &i) ||
                     (!operands.empty() && ParseArithmetic(opcode, operands, &i));
  if (!known) {
    Fail("the PTX runner does not know '%s' (line %d of %s)", i.text.c_str(), line,
         kernel_->name.c_str());
  }
  kernel_->code.push_back(std::move(i));
}

// A file, line by line: outside of kernels, in the head of one, or in its body.
class FileReader {
 public:
  std::map<std::string, std::unique_ptr<Kernel>> Read(const std::string& path) {
    std::ifstream file(path);
    if (!file) Fail("cannot read %s", path.c_str());
    int number = 0;
    for (std::string line; std::getline(file, line);) {
      ++number;
      const std::string text = Trim(line.substr(0, line.find("//")));
      if (text.empty()) continue;
      if (!parser_) {
        Outside(text);
      } else if (depth_ == 0) {
        Head(text);
      } else {
        Body(text, number);
      }
    }
    return std::move(kernels_);
  }

 private:
  void Outside(const std::string& text) {
    if (text.compare(0, 14, ".extern .shared") == 0 || text.find(".extern .shared") == 0) {
      const std::string name = text.substr(text.find(".b8 ") + 4);
      shared_symbols_.insert(name.substr(0, name.find('[')));
    }
    const std::size_t entry = text.find(".entry ");
    if (entry == std::string::npos) return;
    const std::string name = text.substr(entry + 7);
    parser_.emplace(name.substr(0, name.find_first_of("( \t")), shared_symbols_);
  }

  void Head(const std::string& text) {
    if (text.compare(0, 6, ".param") == 0) {
      parser_->AddParameter(text);
    } else if (text.compare(0, 8, ".maxntid") == 0) {
      parser_->SetMaxThreads(std::atoi(text.c_str() + 8));
    } else if (text[0] == '{') {
      depth_ = 1;
    }
  }

  void Body(std::string text, int number) {
    if (text.back() == ':') {
      parser_->AddLabel(text.substr(0, text.size() - 1));
      return;
    }
    while (!text.empty()) {
      if (text[0] == '{' || text[0] == '}') {
        depth_ += text[0] == '{' ? 1 : -1;
        text = Trim(text.substr(1));
        if (depth_ > 0) continue;
        auto kernel = parser_->Finish();
        kernels_[kernel->name] = std::move(kernel);
        parser_.reset();
        return;
      }
      const std::size_t end = text.find(';');
      if (end == std::string::npos) {
        pending_ += text + " ";
        return;
      }
      const std::string statement = Trim(pending_ + text.substr(0, end));
      pending_.clear();
      text = Trim(text.substr(end + 1));
      if (statement.compare(0, 4, ".reg") == 0) {
        parser_->AddRegisters(statement);
      } else if (!statement.empty() && statement[0] != '.') {
        parser_->AddStatement(statement, number);
      }
    }
  }

  std::map<std::string, std::unique_ptr<Kernel>> kernels_;
  std::set<std::string> shared_symbols_;
  std::optional<Parser> parser_;
  std::string pending_;
  int depth_ = 0;
};

}  // namespace

std::map<std::string, std::unique_ptr<Kernel>> ReadPtx(const std::string& path) {
  return FileReader().Read(path);
}

}  // namespace ptx_runner
