// Which rows meet which: a window and a prior in tiles of rows, each of which visits tiles of columns.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/block.cuh"

namespace mow::cuda {

// The prior, or the window.
template <class T>
__device__ Sequence<T> sequence(const Samples<T>& samples, bool prior) {
  if (prior) return {samples.prior, Rows<T>{}};
  return {samples.history, samples.current};
}

// The tiles of a problem: those of the window, then those of the prior. So are the tiles of columns, which may be smaller.
struct Tiling {
  int64_t rows, columns;  // of a tile, the first a multiple of the second
  int64_t history, window, prior;
  bool needs_grad;

  MOW_HD int64_t of_window() const { return tiles(window, rows); }
  MOW_HD int64_t of_prior() const { return tiles(prior, rows); }
  MOW_HD int64_t count() const { return of_window() + of_prior(); }

  MOW_HD int64_t columns_of_window() const { return tiles(window, columns); }
  MOW_HD int64_t columns_of_prior() const { return tiles(prior, columns); }
  MOW_HD int64_t most_visits() const { return columns_of_window() + columns_of_prior(); }

  // Rows of the window are in the order history, current.
  MOW_HD bool has_gradient(int64_t tile) const {
    return needs_grad && tile < of_window() && (tile + 1) * rows > history;
  }

  // Tiles with a gradient come first, so that these alone are done in the same way as with the others; of the others, whose
  // blocks are not all there at once, those with the most to visit.
  MOW_HD int64_t live() const { return needs_grad ? of_window() - history / rows : 0; }
  MOW_HD int64_t tile(int64_t turn) const {
    const int64_t before = of_window() - live(), other = turn - live();
    return other < 0 ? before + turn : other < before ? before - 1 - other : count() - 1 - (other - before);
  }

  // The tiles of columns that a tile meets: within a sample each unordered pair once, except that current rows meet all
  // rows, since each of them needs its own gradient.
  MOW_HD int64_t visits(int64_t tile) const {
    if (tile >= of_window()) return up_to(tile - of_window(), columns_of_prior());
    return (has_gradient(tile) ? columns_of_window() : up_to(tile, columns_of_window())) + columns_of_prior();
  }

  MOW_HD int64_t visited(int64_t tile, int64_t visit) const {
    if (tile >= of_window()) return columns_of_window() + visit;
    const int64_t within = visits(tile) - columns_of_prior();
    return visit < within ? visit : columns_of_window() + visit - within;
  }

 private:
  MOW_HD static int64_t tiles(int64_t count, int64_t size) { return (count + size - 1) / size; }

  // Tiles of columns from the first to the last that a tile has rows of.
  MOW_HD int64_t up_to(int64_t tile, int64_t most) const {
    const int64_t end = (tile + 1) * (rows / columns);
    return end < most ? end : most;
  }
};

template <class T>
MOW_HD Tiling tiling(const Samples<T>& samples, bool needs_grad, int rows, int columns) {
  return {rows, columns, samples.history.count, samples.window(), samples.prior.count, needs_grad};
}

// A tile of rows against one of columns.
template <class T>
struct Visit {
  const Samples<T>& samples;
  int64_t first_row, first_column;
  bool of_prior, columns_of_prior;  // the sample of the rows and that of the columns
  bool slopes;                      // whether rows want their gradient

  __device__ Sequence<T> rows() const { return sequence(samples, of_prior); }
  __device__ Sequence<T> columns() const { return sequence(samples, columns_of_prior); }

  // One sample, of which each unordered pair counts once.
  __device__ bool same() const { return of_prior == columns_of_prior; }
};

// Visits first <= v < first + count of a tile.
template <class T>
struct Visits {
  const Samples<T>& samples;
  const Tiling& tiles;
  int64_t tile, first, count;

  __device__ Visit<T> operator[](int64_t number) const {
    const int64_t other = tiles.visited(tile, first + number);
    const int64_t of_window = tiles.of_window(), columns_of_window = tiles.columns_of_window();
    const bool rows = tile < of_window, columns = other < columns_of_window;
    const int64_t row = (rows ? tile : tile - of_window) * tiles.rows;
    const int64_t column = (columns ? other : other - columns_of_window) * tiles.columns;
    return {samples, row, column, !rows, !columns, tiles.has_gradient(tile)};
  }
};

}  // namespace mow::cuda
