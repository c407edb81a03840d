import { mapMemory } from '../../linux/index.js';

/**
 * One access of another process to a memory file. It maps the file at descriptor 3, writes the bytes that its
 * command line gives there, and prints what it finds. Arguments: bytes to map, offset, count, and the bytes
 * to write, if any, in hexadecimal, as is the output.
 */
const [mapped, offset, count, given] = process.argv.slice(2);
const mapping = mapMemory({ kind: 'file', fd: 3, length: Number(mapped) });
const bytes = mapping.bytes(Number(offset), Number(count));
if (given) bytes.set(Buffer.from(given, 'hex'));
process.stdout.write(Buffer.from(bytes).toString('hex'));
