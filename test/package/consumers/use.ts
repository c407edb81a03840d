// A user's program: compiled against the packed library and run. It prints `ok`.
import { strict as assert } from 'node:assert';
import { DemandPagingError, ERROR_CODES } from 'demand-paging';

const error = new DemandPagingError('NOT_SUPPORTED', 'not here', { errno: 22 });
assert(error instanceof Error);
assert.equal(error.code, 'NOT_SUPPORTED');
assert.equal(error.errno, 22);
assert(ERROR_CODES.includes(error.code));
// @ts-expect-error a code outside the closed union
assert(!ERROR_CODES.includes('NO_SUCH_CODE'));

process.stdout.write('ok\n');
