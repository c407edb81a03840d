/** How many times the usual number of runs: 1, or what DP_RUNS says, or 20 in a long run. */
export const RUNS_FACTOR = Number(
  process.env['DP_RUNS'] ?? (process.env['DEMAND_PAGING_LONG'] === '1' ? 20 : 1),
);

/** To repeat a failure: the seed and path that it printed. */
export const REPLAY = {
  ...(process.env['DP_SEED'] !== undefined && { seed: Number(process.env['DP_SEED']) }),
  ...(process.env['DP_PATH'] !== undefined && { path: process.env['DP_PATH'] }),
};
