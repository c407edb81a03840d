import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, type WriteStream } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { findProgram } from './command.js';
import { unavailable } from './failure.js';
import { type Target } from './target.js';

/** How one boot went, from the outside. */
export interface Ended {
  /** `ended`: QEMU ended by itself. */
  readonly how: 'ended' | 'boot-limit' | 'time-limit';
  readonly status: number | null;
  readonly complaint: string;
}

export interface BootRequest {
  readonly target: Target;
  readonly kernel: string;
  readonly initrd: string;
  readonly memory: number;
  /** A folder of this run, with a short name: sockets lie in it. */
  readonly folder: string;
  readonly consoleFile: string;
  readonly bootLimit_ms: number;
  readonly timeLimit_ms: number;
  readonly signal: AbortSignal;
  /** What the guest prints, as it comes. */
  readonly onConsole: (text: string) => void;
  /** Each line that arrives on a port. */
  readonly onLine: (line: string) => void;
  /** Resolves when the guest has begun its work: from then on the boot limit no longer counts. */
  readonly booted: Promise<void>;
}

export const PORTS = ['lab.tests', 'lab.records'] as const;

/** Boots a machine and waits for its end. No QEMU is left, however this ends. */
export async function boot(request: BootRequest): Promise<Ended> {
  const { target, folder, signal } = request;
  const qemu = findProgram(target.qemu.program);
  if (qemu === undefined) throw noQemu(target);
  signal.throwIfAborted();
  const ports = await Promise.all(PORTS.map((port) => Port.listen(join(folder, port), request.onLine)));
  const console = createWriteStream(request.consoleFile);
  const child = start(qemu, arguments_(request));
  try {
    return await watch(child, request, console);
  } finally {
    child.kill('SIGKILL');
    await Promise.all(ports.map((port) => port.close()));
    await new Promise((resolve) => console.end(resolve));
    signal.throwIfAborted();
  }
}

export function noQemu(target: Target): Error {
  return unavailable(
    `${target.qemu.program} is not installed`,
    `apt-get install ${target.qemu.debianPackage}`,
  );
}

function start(qemu: string, args: readonly string[]): ChildProcess {
  const [program, ...rest] = boundToThis(qemu, args);
  return spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
}

/** How to start a program so that the kernel kills it when this process is killed. */
export function boundToThis(program: string, args: readonly string[]): [string, ...string[]] {
  const setpriv = findProgram('setpriv');
  return setpriv === undefined ? [program, ...args] : [setpriv, '--pdeathsig', 'KILL', program, ...args];
}

/** The arguments of QEMU for one boot. */
export function arguments_({ target, kernel, initrd, memory, folder }: BootRequest): string[] {
  const ports = PORTS.flatMap((name, index) => [
    ...['-chardev', `socket,id=port${index},path=${join(folder, name)}`],
    ...['-device', `virtserialport,chardev=port${index},name=${name}`],
  ]);
  return [
    ...target.machine,
    // One thread emulates both CPUs in turn. Kernels patch code that other CPUs execute (x86: int3, then the
    // rest, then the first byte), and V8 makes code while it runs: emulated in parallel, x86 kernels have
    // trapped on an int3 that was gone already, and Node has ended by SIGSEGV.
    ...['-accel', 'tcg,thread=single', '-smp', '2', '-m', String(memory)],
    ...['-display', 'none', '-serial', 'stdio', '-monitor', 'none', '-nic', 'none', '-no-reboot'],
    ...['-device', 'virtio-serial-pci', ...ports],
    ...['-kernel', kernel, '-initrd', initrd],
    ...['-append', `console=${target.console} quiet panic=-1`],
  ];
}

/** A socket to which QEMU connects for one port of the guest. */
class Port {
  readonly #server: Server;
  readonly #read: Promise<void>[] = [];

  private constructor(onLine: (line: string) => void) {
    this.#server = createServer((socket) => {
      socket.on('error', () => {}); // QEMU was killed
      const lines = createInterface({ input: socket });
      lines.on('line', onLine);
      this.#read.push(new Promise((resolve) => lines.on('close', resolve)));
    });
  }

  static listen(path: string, onLine: (line: string) => void): Promise<Port> {
    const port = new Port(onLine);
    return new Promise((resolve, reject) => {
      port.#server.on('error', reject);
      port.#server.listen(path, () => resolve(port));
    });
  }

  /** Waits until all that QEMU sent is read. To be called when QEMU is gone. */
  async close(): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
    await Promise.all(this.#read);
  }
}

function watch(child: ChildProcess, request: BootRequest, console: WriteStream): Promise<Ended> {
  let complaint = '';
  let how: Ended['how'] = 'ended';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    console.write(text);
    request.onConsole(text);
  });
  child.stderr!.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
  const stop = (reason: Ended['how']) => (): void => {
    how = reason;
    child.kill('SIGKILL');
  };
  const boot = setTimeout(stop('boot-limit'), request.bootLimit_ms);
  const limit = setTimeout(stop('time-limit'), request.timeLimit_ms);
  const aborted = stop('ended');
  request.signal.addEventListener('abort', aborted);
  void request.booted.then(() => clearTimeout(boot));
  return new Promise<Ended>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => resolve({ how, status, complaint: complaint.trim() }));
  }).finally(() => {
    clearTimeout(boot);
    clearTimeout(limit);
    request.signal.removeEventListener('abort', aborted);
  });
}
