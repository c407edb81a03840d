import { cpus, loadavg, release, totalmem, arch } from 'node:os';

/** What the figures were measured on. */
export interface Host {
  readonly cpus: number;
  readonly model: string;
  readonly architecture: string;
  readonly memory_GiB: number;
  readonly kernel: string;
  readonly node: string;
  /** One-minute load average before the first run: others' work makes every figure noisier. */
  readonly load: number;
}

export function describeHost(): Host {
  const list = cpus();
  return {
    cpus: list.length,
    model: list[0]?.model ?? 'unknown',
    architecture: arch(),
    memory_GiB: Math.round((totalmem() / 2 ** 30) * 10) / 10,
    kernel: release(),
    node: process.version,
    load: loadavg()[0]!,
  };
}

export function hostLine(host: Host): string {
  const { model, architecture, memory_GiB, kernel, node, load } = host;
  return `${host.cpus} × ${model} (${architecture}), ${memory_GiB} GiB, Linux ${kernel}, Node ${node}, load ${load.toFixed(2)}`;
}
