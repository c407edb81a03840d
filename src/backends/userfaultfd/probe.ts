import { existsSync, readFileSync } from 'node:fs';
import { type Requirement, type Requirements, refused, requirements, unmet } from '../../api/capability.js';
import { DemandPagingError } from '../../api/error.js';
import { type MemoryKind } from '../../api/layout.js';
import {
  aThread,
  uffdFeatureNames,
  USERFAULTFD_DEVICE,
  userfaultfdSupport,
  type UserfaultfdSupport,
} from '../../linux/index.js';
import { neededFeatures } from './negotiation.js';
import { type UserfaultfdChoice } from './options.js';
import { type Attach, rehearse } from './rehearsal.js';

/** What is tried where the memory is not said: what the verb that installs contents is for. */
const usual = ({ install }: UserfaultfdChoice): readonly MemoryKind[] =>
  install === 'continue' ? ['shmem'] : ['anonymous'];

/**
 * What this host lacks for a userfaultfd as chosen, over memory of these kinds. Opens one, pages a little
 * memory and closes it again. Never throws.
 */
export function probeUserfaultfd(
  choice: UserfaultfdChoice,
  attach: Attach,
  memory = usual(choice),
): Requirements {
  const native: Requirement = {
    what: 'Linux on x64 or arm64',
    met: isNative(),
    found: `${process.platform}/${process.arch}`,
    remedy: '',
  };
  if (!native.met)
    return requirements([{ ...native, remedy: 'run on Linux, x64 or arm64', code: 'NATIVE_UNAVAILABLE' }]);
  const opened = open(choice);
  const what = 'a userfaultfd';
  if (opened instanceof DemandPagingError) {
    const lacking = unmet(what, opened);
    return requirements([native, { ...lacking, found: `${lacking.found}; ${situation()}` }]);
  }
  const descriptor: Requirement = { what, met: true, found: situation(), remedy: '' };
  const kinds = new Set(memory);
  const lacking = uffdFeatureNames(BigInt(neededFeatures(choice, kinds)) & ~opened.mask);
  const features: Requirement = {
    what: 'the features asked for',
    met: lacking.length === 0,
    found:
      lacking.length === 0
        ? `0x${opened.mask.toString(16)}`
        : `0x${opened.mask.toString(16)}, without ${lacking.join(', ')}`,
    remedy: lacking.length === 0 ? '' : lacking.includes('RWP') ? 'Linux 7.3 or newer' : 'a newer kernel',
  };
  const list = [native, descriptor, features];
  if (!features.met) return requirements(list);
  return requirements([...list, systemCalls(choice, attach, memory), aThread()]);
}

/** Whether it is tried on memory of a kind. Not on huge pages, whose pool may be for the pager alone. */
const fits = ({ faults }: UserfaultfdChoice, kind: MemoryKind): boolean =>
  kind === 'shmem' || (kind === 'anonymous' && !faults.includes('minor'));

/** Every system call that a pager makes, tried. */
function systemCalls(choice: UserfaultfdChoice, attach: Attach, memory: readonly MemoryKind[]): Requirement {
  const what = 'the system calls';
  try {
    for (const kind of memory) if (fits(choice, kind)) rehearse(attach, choice, kind);
    return { what, met: true, found: 'none is refused', remedy: '' };
  } catch (error) {
    return refused(what, error);
  }
}

const isNative = (): boolean =>
  process.platform === 'linux' && (process.arch === 'x64' || process.arch === 'arm64');

function open(choice: UserfaultfdChoice): UserfaultfdSupport | DemandPagingError {
  try {
    return userfaultfdSupport({
      via: choice.via === 'auto' ? 'either' : choice.via,
      userModeOnly: choice.userModeOnly,
    });
  } catch (error) {
    if (error instanceof DemandPagingError) return error;
    return new DemandPagingError('NATIVE_UNAVAILABLE', String(error));
  }
}

function situation(): string {
  const device = existsSync(USERFAULTFD_DEVICE)
    ? `${USERFAULTFD_DEVICE} is there`
    : `no ${USERFAULTFD_DEVICE}`;
  return `${device}; vm.unprivileged_userfaultfd=${read('/proc/sys/vm/unprivileged_userfaultfd').trim() || 'unknown'}`;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
