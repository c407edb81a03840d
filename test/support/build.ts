import { ensureBuilt } from '../../scripts/setup.mjs';

/** The package tests look at the built library: make sure that it belongs to the present sources. */
export default function setup(): void {
  ensureBuilt();
}
