export { file, openFile, type FileSourceOptions } from './file-source.js';
export { memory, openMemory, type MemorySourceOptions, type NativeMemory } from './memory-source.js';
export { openZero, zero, type ZeroSourceOptions } from './zero-source.js';
