/** Which of Debian's kernels: the newest backport, or that of a release. */
export const KERNELS = ['newest', 'stable', 'oldstable'] as const;
export type KernelChoice = (typeof KERNELS)[number];

/** What is particular to one architecture. */
export interface Target {
  readonly name: 'arm64' | 'x86';
  /** As Debian calls it. */
  readonly debian: string;
  /** As Node calls it. */
  readonly node: string;
  readonly qemu: { readonly program: string; readonly debianPackage: string };
  /** The package that depends on the newest kernel of a suite. */
  readonly kernelPackage: string;
  /** Debian packages of the userland, besides the kernel. */
  readonly userland: readonly string[];
  /** Whether Node and its libraries come from this machine, which is of the same architecture. */
  readonly hostNode: boolean;
  /** Kernel modules to load before the tests; those that are built in are passed over. */
  readonly modules: readonly string[];
  readonly console: string;
  /** Arguments of QEMU that make the machine. */
  readonly machine: readonly string[];
  /** MiB of memory, unless the command line says otherwise. */
  readonly memory: number;
}
