import { z } from 'zod';

/** One line from inside the machine. */
const LINE = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('start'), release: z.string(), version: z.string(), uptime: z.number() }),
  z.object({ kind: z.literal('suite'), suite: z.string(), uptime: z.number() }),
  z.object({
    kind: z.literal('test'),
    suite: z.string(),
    name: z.string(),
    status: z.enum(['passed', 'failed', 'skipped']),
    ms: z.number(),
    reason: z.string().optional(),
  }),
  z.object({ kind: z.literal('measurement'), suite: z.string(), name: z.string(), value: z.unknown() }),
  z.object({
    kind: z.literal('file'),
    suite: z.string(),
    name: z.string().regex(/^[\w.-]+$/),
    text: z.string(),
  }),
  z.object({ kind: z.literal('suite-end'), suite: z.string(), status: z.number(), uptime: z.number() }),
  z.object({ kind: z.literal('end'), uptime: z.number() }),
]);

export type RecordLine = z.infer<typeof LINE>;

/** Reads a line. A damaged one is undefined: the guest died while it wrote. */
export function readLine(text: string): RecordLine | undefined {
  try {
    return LINE.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
