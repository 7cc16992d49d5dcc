// The internal interface between the Gram engine's driver, gram.cc, and an instruction set. Plain
// data only, as in kernel.h.
//
// A run of rows is packed into panels of kGramPanel columns as doubles, shifted and scaled: those
// of X, then those of Y. Sums are kept as tiles of one left panel, of X or Y, whose columns are the
// rows of the tile, by one right panel, of X: left panels in groups, X's and then Y's; for each
// group of X the right panels from its first one on, for one of Y all of them; for each right panel
// the tiles of the group's panels, those of X up to it. So of XᵀX only one half is computed, and
// of a Y of one column one row of a tile.
#pragma once

#include <cstdint>

#include "kernels/gram.h"

namespace linreg_ops {
namespace cpu {

constexpr std::int64_t kGramPanel = 8;      // columns
constexpr std::int64_t kGramTile = 64;      // doubles
constexpr std::int64_t kGramGroup = 9;      // panels
constexpr std::int64_t kGramRunRows = 128;  // rows of one chain of multiply-adds

// From one packed panel to the next, in doubles: a cache line more than a panel has, so that the
// same row of several panels does not fall into one set of a cache.
constexpr std::int64_t kGramPanelSize = (kGramRunRows + 1) * kGramPanel;

// Rows to pack into some panels of a run: all of one array, of one type.
struct GramPack {
  const void* data;           // row 0
  std::int64_t stride;        // of its rows, in elements
  std::int64_t columns;       // of a row
  const void* end;            // nothing from here on may be read
  const std::int64_t* index;  // [rows]: which row is the next one; null: from 0 on, in order
  std::int64_t rows;
  const double* weights;  // [rows], or null for ones
  const double* scale;    // [panels · 8], of the array's columns
  const double* offset;
  std::int64_t first_panel, panels;
  double* right;    // panel first_panel, at the row where these go
  double* left;     // the same times weights; null: not wanted
  double* sum;      // [panels · 8] from first_panel on: += Σ s z
  double* squares;  // += Σ s z²; null: not wanted
};

// The tiles of one group by some right panels, over one run.
struct GramTiles {
  const double* left;  // the group's first panel
  std::int64_t left_panels;
  std::int64_t last_columns;  // of the group's last panel
  const double* right;        // X's first panel
  std::int64_t right_begin, right_end;
  std::int64_t diagonal;  // number of the group's first panel among X's; of Y's panels: kNoDiagonal
  std::int64_t rows;      // of the run
  double* tiles;          // += those of right_begin, and so on

  // Panels of the group that have tiles with right panel q.
  std::int64_t Lefts(std::int64_t q) const {
    return q + 1 - diagonal < left_panels ? q + 1 - diagonal : left_panels;
  }
};
constexpr std::int64_t kNoDiagonal = -(std::int64_t{1} << 60);

// Whole blocks of few columns have a lane for each of the block's eight runs: see gram_lanes.h.
constexpr std::int64_t kGramLanes = kGramBlockRows / kGramRunRows;

// The next elements of an array's eight runs, into lanes.
struct GramToLanes {
  const void* data;           // the first run's
  std::int64_t run_elements;  // from one run to the next
  std::int64_t rows;          // of each run, a multiple of 8
  std::int64_t columns;
  const double* scale;  // [columns]
  const double* offset;
  double* lanes;        // [rows, stride, 8], of which the first `columns` columns
  std::int64_t stride;  // columns of all arrays
};

// What these rows add to the lanes of each sum: for each column z of X and then of Y Σ s z and then
// its products with those that follow, itself the first; a column of Y with itself alone.
struct GramLaneSums {
  const double* lanes;    // [rows, columns, 8]
  const double* weights;  // [rows, 8], or null for ones
  std::int64_t rows, x_columns, columns;
  double* sums;  // [.., 8]
};

struct GramKernels {
  void (*pack[4])(const GramPack&);  // by DType
  void (*to_lanes[4])(const GramToLanes&);
  void (*lane_sums)(const GramLaneSums&);  // null: only panels
  void (*widen[4])(const void* from, double* to, std::int64_t count);
  void (*tiles)(const GramTiles&);
  // sum + error += add, without an error of its own.
  void (*accumulate)(const double* add, double* sum, double* error, std::int64_t count);
};

extern const GramKernels& kAvx512Gram;
extern const GramKernels& kAvx2Gram;
extern const GramKernels& kNeonGram;
extern const GramKernels& kScalarGram;

}  // namespace cpu
}  // namespace linreg_ops
