import { expect, test } from 'vitest';
import { MappingBudget } from '../../../src/kvm/mapping-limit.js';
import { GuestMemfdInstaller } from '../../../src/kvm/installer.js';
import {
  guestMemfdSupport,
  Kvm,
  makePipe,
  mapMemory,
  raw,
  takesWrites,
  UFFD_REGISTER_MODE,
  Userfaultfd,
} from '../../../src/linux/index.js';
import { needUserfaultfd, PAGE } from '../userfaultfd/scene.js';

const PAGES = 4;

/**
 * Kernels whose guest_memfd takes write(2) are in no release: a memory file, which does, stands for one of
 * theirs.
 */
test('installer: a file that supports write(2): pages are written by it', (context) => {
  needUserfaultfd(context);
  using file = mapMemory({ kind: 'shmem', length: PAGES * PAGE });
  using reservation = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
  // Not memory of the file: no mapping shows what is written here.
  using elsewhere = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
  using contents = mapMemory({ kind: 'anonymous', length: 2 * PAGE });
  contents.bytes().fill(7, 0, PAGE).fill(8, PAGE);
  using uffd = Userfaultfd.open();
  uffd.register(reservation.address, reservation.length, UFFD_REGISTER_MODE.MISSING);
  const { address } = reservation;
  const memory = { address, whileMissing: address, guestMemfd: file.fd!, guestMemfdOffset: 0 };
  const region = { page: 10, count: PAGES, pageSize: PAGE, chunk: 1, gpa: 0, ...memory };
  const installer = new GuestMemfdInstaller(
    uffd.port,
    new Map([[10, elsewhere.address]]),
    elsewhere,
    new MappingBudget(),
    () => {},
  );
  expect(installer.copy(region, 11, 2, contents.address)).toEqual({ pages: 2, errno: 0 });
  const seen = reservation.bytes(PAGE, 2 * PAGE);
  expect([seen[0], seen[PAGE - 1], seen[PAGE], seen[2 * PAGE - 1]]).toEqual([7, 7, 8, 8]);
  expect(elsewhere.residency()).toEqual(new Uint8Array(PAGES));
});

test('takesWrites: any file: tests without writing', () => {
  using file = mapMemory({ kind: 'shmem', length: PAGE });
  expect(takesWrites(file.fd!)).toBe(true);
  expect(file.residency()).toEqual(new Uint8Array(1));
  const pipe = makePipe();
  for (const fd of pipe) {
    expect(takesWrites(fd)).toBe(false);
    raw.close(fd);
  }
});

test('guestMemfdSupport: this kernel: as its release says', (context) => {
  let kvm: Kvm;
  try {
    kvm = Kvm.open();
  } catch (error) {
    return context.skip((error as Error).message);
  }
  kvm.close();
  // So on every release up to 7.3. On one where it fails, the library fills by write(2) what it never has
  // before.
  expect(guestMemfdSupport()).toMatchObject({ write: false, userfaultfd: false });
});
