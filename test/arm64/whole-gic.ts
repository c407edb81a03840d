import type { SavedInterrupts, SavedVgic } from '../../src/arm64/index.js';

const words = (count: number, seed: number): number[] =>
  Array.from({ length: count }, (_, n) => Math.imul(seed + n, 0x9e37_79b1) >>> 0);

/** State of `count` interrupts in which no two registers are alike. */
const interrupts = (count: number, seed: number): SavedInterrupts => ({
  igroupr: words(count / 32, seed + 1),
  icfgr: words(count / 16, seed + 2),
  ipriorityr: words(count / 4, seed + 3),
  isenabler: words(count / 32, seed + 4),
  lineLevel: words(count / 32, seed + 5),
  ispendr: words(count / 32, seed + 6),
  isactiver: words(count / 32, seed + 7),
});

const NR_IRQS = 96;
const SPIS = NR_IRQS - 32;
/** PRIbits 6: two active priorities registers of each group. */
const ICC_CTLR = 0x8500n;

/** Everything that a VMM saves of a GIC with two vCPUs, whose MPIDRs are not KVM's, and two ITSes. */
export const WHOLE_GIC = {
  distributor: {
    nrIrqs: NR_IRQS,
    iidr: 0x4b00_343bn,
    typer2: 0n,
    ctlr: 0x52n,
    spis: {
      ...interrupts(SPIS, 100),
      irouter: Array.from({ length: SPIS }, (_, n) => 0x1_0000_0000n * BigInt(n) + BigInt(n % 2)),
    },
  },
  redistributors: [
    { vcpuId: 0, mpidr: 0x8000_0100n },
    { vcpuId: 1, mpidr: 0x7f_8000_0200n },
  ].map((vcpu, n) => ({
    ...vcpu,
    propbaser: 0x0003_0000_8000_078fn,
    pendbaser: 0x0002_0000_8001_0780n + BigInt(n),
    ctlr: 0x7n,
    interrupts: interrupts(32, 200 + n),
    cpuInterface: {
      sre: 7n,
      ctlr: ICC_CTLR,
      pmr: 0xf0n + BigInt(n),
      bpr0: 2n,
      bpr1: 3n,
      igrpen0: 0n,
      igrpen1: 1n,
      ap0r: [0x10n, 0x11n],
      ap1r: [0x8000_0000n, 0x20n],
    },
  })),
  itses: [0x808_0000n, 0x80a_0000n].map((base, n) => ({
    base,
    iidr: 0x4b00_043bn,
    cbaser: 0xb800_0000_8007_0780n + BigInt(n),
    creadr: 0x40n,
    cwriter: 0x60n,
    baser0: 0xc107_0000_8008_0600n,
    baser1: 0x8407_0000_8005_0600n,
    ctlr: 0x8000_0001n,
  })),
} satisfies SavedVgic;
