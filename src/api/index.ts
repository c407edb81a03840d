export * from './address.js';
export * from './error.js';
export * from './program.js';
