import { existsSync, readFileSync } from 'node:fs';
import { type Requirement, type Requirements, requirements, unmet } from '../../api/capability.js';
import { DemandPagingError } from '../../api/error.js';
import {
  uffdFeatureNames,
  USERFAULTFD_DEVICE,
  userfaultfdSupport,
  type UserfaultfdSupport,
} from '../../linux/index.js';
import { neededFeatures } from './negotiation.js';
import { type UserfaultfdChoice } from './options.js';

/** What this host lacks for a userfaultfd as chosen. Opens one and closes it again. Never throws. */
export function probeUserfaultfd(choice: UserfaultfdChoice): Requirements {
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
  const kinds = new Set(['anonymous'] as const);
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
  return requirements([native, descriptor, features]);
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
