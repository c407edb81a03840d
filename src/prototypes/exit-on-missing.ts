import { type ModelMechanism, type PageRequest, type ModelKernel } from '../backends/memory/index.js';
import { ERRNO } from '../backends/memory/errno.js';
import { throughMapping } from './contents.js';
import { type KernelSide, type Surroundings } from './definition.js';
import { defineUapi } from './uapi.js';
import { before, VCPU_SITES } from './vcpu-sites.js';

/** Nothing is left open: presence is the VMM's page table. */
export type ExitOnMissingOptions = Record<never, never>;

function exitOnMissingSide(_options: ExitOnMissingOptions, { userfaultfd }: Surroundings): KernelSide {
  const exits: ModelMechanism = {
    name: 'exit-on-missing',
    effect: 'exits',
    address: 'exact',
    outlivesHandler: true,
    // get_user_pages_fast() alone: what the page table does not have at once is an exit, whatever the reason.
    obstacle: ({ page, write }, { memory }) => {
      const obstacle = memory.obstacle(page, write);
      return typeof obstacle === 'string' && !memory.isMapped(page) ? 'missing' : obstacle;
    },
    stop: (access, kind) => access.exit(kind),
    reenter: (access, kernel) => kernel.deliver(access, access.kind!, { attributed: true }),
    ...(!userfaultfd && { carryOut: populate }),
  };
  // kvm_vcpu_map() and the like opt out, and copies go through the VMM's mapping: neither is stopped here.
  return { sites: before(VCPU_SITES, exits) };
}

/**
 * Without a userfaultfd the only way to end a page's absence is to touch it, so it is there, as zeros, before its
 * contents are. That is why the series is meant for use with one.
 */
function populate(request: PageRequest, kernel: ModelKernel): number | undefined {
  const { verb, page } = request;
  if (verb !== 'copy' && verb !== 'zeropage') return undefined;
  if (kernel.memory.isMapped(page)) return ERRNO.EEXIST;
  const errno = throughMapping(request, kernel);
  if (errno === 0) kernel.trace?.({ actor: { kind: 'vmm' }, kind: 'contents-written', page });
  return errno;
}

/**
 * Anish Moorthy's exit on missing: a memslot flag with which a vCPU's fault that fast get_user_pages()
 * cannot serve leaves KVM_RUN with -EFAULT and the address, instead of sleeping. Presence is the VMM's page table, so
 * contents must come by a verb that maps them whole: a userfaultfd's.
 *
 * Source: series "Improve KVM + userfaultfd performance via KVM_EXIT_MEMORY_FAULTs on stage-2 faults", v7, February 2024.
 */
export const exitOnMissing = defineUapi<ExitOnMissingOptions>({
  name: 'exit-on-missing',
  source: {
    title: 'Improve KVM + userfaultfd performance via KVM_EXIT_MEMORY_FAULTs on stage-2 faults',
    author: 'Anish Moorthy',
    date: '2024-02',
    reference: 'series v7',
    status: 'held, not merged',
  },
  constants: [{ name: 'KVM_MEM_EXIT_ON_MISSING', value: 1 << 3, comment: 'flags of the memslot' }],
  structs: [
    {
      name: 'kvm_exit_on_missing_fault',
      comment: 'memory_fault of struct kvm_run: KVM_RUN has failed with EFAULT',
      fields: [
        { name: 'flags', type: 'u64' },
        { name: 'gpa', type: 'u64' },
        { name: 'size', type: 'u64' },
      ],
    },
  ],
  verbs: ['copy', 'zeropage', 'wake'],
  defaults: {},
  kernelSide: exitOnMissingSide,
});
