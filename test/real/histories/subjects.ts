import { openSync, closeSync, ftruncateSync, unlinkSync } from 'node:fs';
import { type AccessSite, type Backend, type MemoryKind } from 'demand-paging';
import { NATIVE_SITES, type NativeSite, startAccessor } from 'demand-paging/accessors';
import { userfaultfd, type UserfaultfdBackendOptions } from 'demand-paging/backends/userfaultfd';
import { canRead, canWrite, type RealSubject } from 'demand-paging/conformance';
import { type GuestBackendName, guestSubject, probeGuest } from 'demand-paging/guests';
import { type CommandKind, COMMANDS } from './history.js';

/** A backend on this kernel, with what histories can be made of. */
export interface HistorySubject {
  readonly name: string;
  /** Why it cannot be had here. */
  readonly lack: string | undefined;
  readonly real: RealSubject;
  readonly memory: MemoryKind;
  readonly commands: readonly CommandKind[];
  /** Its memory lies in a file of the test's, with a second way in. */
  readonly hasFile: boolean;
}

const without = (...left: readonly CommandKind[]): readonly CommandKind[] =>
  COMMANDS.filter((kind) => !left.includes(kind));

/** Sites that read or write eight bytes as they are told. */
export const isPlain = (site: AccessSite): boolean =>
  !['vcpu-fetch', 'vcpu-walk', 'vcpu-atomic'].includes(site) && (canRead(site) || canWrite(site));

function userfaultfdSubject(
  name: string,
  options: UserfaultfdBackendOptions,
  commands: readonly CommandKind[],
  memory: MemoryKind = 'anonymous',
): HistorySubject {
  const { list } = userfaultfd(options).probe();
  const unmet = list.filter(({ met }) => !met);
  return {
    name,
    lack: unmet.length > 0 ? unmet.map(({ what, found }) => `${what}: ${found}`).join('; ') : undefined,
    memory,
    commands,
    hasFile: memory === 'shmem',
    real: {
      name,
      deterministic: false,
      memory,
      page_bytes: 4096,
      sites: NATIVE_SITES,
      backend: () => userfaultfd(options),
      accessor: (site, { layout }) => startAccessor(site as NativeSite, layout),
      mayFail: ['vmm-syscall', 'kernel-copy', 'external-vm-readv'],
      killable: ['external-vm-readv'],
    },
  };
}

function kvmSubject(backend: GuestBackendName, commands: readonly CommandKind[]): HistorySubject {
  const unmet = probeGuest({ backend }).list.filter(({ met }) => !met);
  const lack = unmet.length > 0 ? unmet.map(({ what, found }) => `${what}: ${found}`).join('; ') : undefined;
  const real = guestSubject({ backend });
  return { name: backend, lack, real, memory: real.memory ?? 'anonymous', commands, hasFile: false };
}

/** Write protection is userfaultfd's own; only a file of the test's can be filled from beside. */
export const SUBJECTS: readonly HistorySubject[] = [
  userfaultfdSubject('userfaultfd, copy', { faults: ['missing', 'write-protect'] }, without('mark')),
  userfaultfdSubject('userfaultfd, move', { install: 'move' }, without('mark', 'protect', 'unprotect')),
  userfaultfdSubject(
    'userfaultfd, continue',
    { install: 'continue' },
    without('protect', 'unprotect'),
    'shmem',
  ),
  userfaultfdSubject('userfaultfd, copy into a file', {}, without('protect', 'unprotect'), 'shmem'),
  kvmSubject('kvm-exit', without('mark', 'protect', 'unprotect')),
  kvmSubject('composite', without('mark', 'protect', 'unprotect')),
  kvmSubject('guest-memfd', without('mark', 'protect', 'unprotect')),
];

/** A file for guest memory that goes with its last descriptor. */
export class MemoryFile implements Disposable {
  readonly fd: number;

  constructor(length: number) {
    const path = `/dev/shm/demand-paging-history-${process.pid}-${MemoryFile.#count++}`;
    this.fd = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    ftruncateSync(this.fd, length);
  }

  static #count = 0;

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}

/** For mutants: what is put about a backend. */
export type Around = (backend: Backend) => Backend;
