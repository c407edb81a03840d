import { appendFileSync } from 'node:fs';

/** Numbers of 64 bits go as hexadecimal text. */
const plain = (_name: string, value: unknown): unknown =>
  typeof value === 'bigint' ? `0x${value.toString(16)}` : value;

/** Writes one line to the host's side of the lab, or says it here when there is no such side. */
function tell(line: object): void {
  const port = process.env['LAB_RECORDS'];
  const text = `${JSON.stringify({ ...line, suite: process.env['LAB_SUITE'] }, plain)}\n`;
  if (port === undefined) process.stderr.write(text);
  else appendFileSync(port, text);
}

/**
 * Keeps a measurement for the results file: of plain JSON, under a name of this suite; the last one of
 * a name counts. Call it from the main thread: the port has one writer at a time.
 */
export function record(name: string, value: unknown): void {
  tell({ kind: 'measurement', name, value });
}

/** Hands a file to the host, such as a recorded vector: it appears in the `files` folder of the run. */
export function keepFile(name: string, text: string): void {
  tell({ kind: 'file', name, text });
}
