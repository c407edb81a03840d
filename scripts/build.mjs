// @ts-check
// `npm run build`: builds `dist` whether it is up to date or not.
import { build, ensureInstalled, requireNode } from './setup.mjs';

requireNode();
ensureInstalled();
build();
