import { readdirSync, readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Program } from '../../src/api/index.js';
import { commandBytes } from '../../src/arm64/index.js';
import { pageOf } from './guest-memory.js';
import { anyImage } from './image-arbitrary.js';
import { buildImage, LAYOUT, prepareVgic } from './its-image.js';

const folder = new URL('../../src/arm64/', import.meta.url);
const ALLOWED = new Set(['../api/index.js', 'zod', 'ts-pattern']);

describe('its-no-escape', () => {
  it('holds by construction: the folder imports nothing that could reach memory', () => {
    const files = readdirSync(folder).filter((name) => name.endsWith('.ts'));
    expect(files.length).toBeGreaterThan(20);
    const strangers: string[] = [];
    for (const name of files) {
      const source = readFileSync(new URL(name, folder), 'utf8');
      const imports = [...source.matchAll(/\b(?:from|import)\s*\(?\s*['"]([^'"]+)['"]/g)].map(
        ([, from]) => from!,
      );
      const own = new Set(files.map((file) => `./${file.replace(/\.ts$/, '.js')}`));
      strangers.push(
        ...imports.filter((from) => !ALLOWED.has(from) && !own.has(from)).map((from) => `${name}: ${from}`),
      );
      for (const global of [
        'process.',
        'globalThis.',
        'require(',
        'fetch(',
        'SharedArrayBuffer',
        'Atomics.',
      ]) {
        const bare = new RegExp(`(?<![.\\w#])${global.replace(/[.(]/g, '\\$&')}`);
        if (
          bare.test(source.replace(/\/\*[^]*?\*\/|\/\/.*/g, '').replace(/^\s*(?:async )?fetch\(.*$/gm, ''))
        ) {
          strangers.push(`${name}: ${global}`);
        }
      }
    }
    expect(strangers).toEqual([]);
  });

  /* And by effect: every byte that changes was yielded as a write, and no write crosses a window. */
  it('holds by effect: what is not yielded is not written', () => {
    fc.assert(
      fc.property(anyImage, (image) => {
        const { memory } = buildImage(image);
        const vgic = prepareVgic(memory, { ...image, devicePages: 1 });
        const operations: (() => Program<number>)[] = [
          () => vgic.restoreTables(),
          () => vgic.saveTables(),
          () => vgic.savePendingTables(),
        ];
        for (const operation of operations) {
          const before = memory.clone();
          const written = new Set<bigint>();
          const program = operation();
          let step = program.next();
          while (step.done !== true) {
            if (step.value.ask === 'write') {
              for (let at = 0; at < step.value.bytes.length; at++) written.add(step.value.gpa + BigInt(at));
              expect(pageOf(step.value.gpa)).toBe(
                pageOf(step.value.gpa + BigInt(step.value.bytes.length - 1)),
              );
            }
            step = program.next(memory.answer(step.value));
          }
          for (const page of memory.differingPages(before)) {
            const [now, then] = [memory.page(page), before.page(page)];
            for (let at = 0; at < 4096; at++)
              if (now[at] !== then[at]) expect(written.has(page + BigInt(at))).toBe(true);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  it('reads the queue page again for each command', () => {
    const image = { vcpuIds: [0], indirect: false, collections: [{ id: 0, vcpu: 0 }], devices: [] };
    const { memory } = buildImage(image);
    const vgic = prepareVgic(memory, image);
    memory.run(vgic.writeItsRegister(0, 0, 1n));
    memory.page(LAYOUT.queue).set(commandBytes({ kind: 'SYNC', target: 0 }), 0);
    memory.page(LAYOUT.queue).set(commandBytes({ kind: 'SYNC', target: 0 }), 32);
    const program = vgic.writeItsRegister(0, 0x88, 64n);
    let step = program.next();
    let reads = 0;
    while (step.done !== true) {
      if (step.value.ask === 'read' && ++reads === 2) {
        // The guest changed its mind about the second command after the first was read.
        memory
          .page(LAYOUT.queue)
          .set(commandBytes({ kind: 'MAPC', collection: 5, target: 0, valid: true }), 32);
      }
      step = program.next(memory.answer(step.value));
    }
    expect([...vgic.collections()]).toEqual([{ id: 5, target: 0 }]);
  });
});
