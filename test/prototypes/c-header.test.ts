import { spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import {
  asyncPf,
  exitOnMissing,
  fileUffd,
  ioctlNumber,
  kvmUserfault,
  layOut,
  presentBitmap,
  type UapiDefinition,
} from 'demand-paging/prototypes';

const UAPIS = [presentBitmap, exitOnMissing, kvmUserfault, asyncPf, fileUffd].map((uapi) => ({
  name: uapi.name,
  header: uapi.header(),
  table: uapi.ioctlTable(),
  definition: uapi.definition as UapiDefinition<never>,
}));

/** What gcc says about a source; empty when nothing. */
function gcc(source: string, ...flags: readonly string[]): string {
  const { status, stderr, error } = spawnSync(
    'gcc',
    ['-fsyntax-only', '-Wall', '-Wextra', '-Werror', '-std=c11', ...flags, '-xc', '-'],
    { input: source, encoding: 'utf8' },
  );
  if (error) throw error;
  return status === 0 ? '' : stderr;
}

/** Assertions by which the compiler checks the library's own arithmetic. */
function assertions({ structs = [], ioctls = [], constants = [] }: UapiDefinition<never>): string {
  const lines = structs.flatMap((struct) => {
    const { offsets, size } = layOut(struct);
    return [
      `_Static_assert(sizeof(struct ${struct.name}) == ${size}, "size of ${struct.name}");`,
      ...[...offsets].map(
        ([field, offset]) =>
          `_Static_assert(offsetof(struct ${struct.name}, ${field}) == ${offset}, "${struct.name}.${field}");`,
      ),
    ];
  });
  for (const ioctl of ioctls) {
    const struct = structs.find(({ name }) => name === ioctl.struct);
    lines.push(`_Static_assert(${ioctl.name} == ${ioctlNumber(ioctl, struct)}u, "${ioctl.name}");`);
  }
  for (const { name, value } of constants) lines.push(`_Static_assert(${name} == ${value}, "${name}");`);
  return lines.join('\n');
}

describe.each(UAPIS)('the header of $name', ({ header, table, definition }) => {
  test('compiles by itself, and twice, and the compiler agrees on every size, offset and number', () => {
    const source = `${header}\n${header}\n#include <stddef.h>\n${assertions(definition)}\nint main(void) { return 0; }\n`;
    expect(gcc(source)).toBe('');
  });

  test('lets a number chosen elsewhere win', () => {
    const [first] = definition.constants ?? [];
    if (!first) return expect(definition.ioctls?.length).toBeGreaterThan(0);
    expect(gcc(`${header}\n_Static_assert(${first.name} == 77, "");\n`, `-D${first.name}=77`)).toBe('');
  });

  test('names its source', () => {
    expect(header).toContain(definition.source.reference);
    expect(header).toContain(definition.source.author);
  });

  test('has its ioctls in the table, with their errors', () => {
    for (const { name, errors = {} } of definition.ioctls ?? []) {
      expect(table).toContain(name);
      for (const errno of Object.keys(errors)) expect(table).toContain(`${errno}: `);
    }
  });
});

test('the compiler notices a wrong offset', () => {
  const source = `${presentBitmap.header()}\n#include <stddef.h>\n_Static_assert(offsetof(struct kvm_mark_present, npages) == 16, "");\n`;
  expect(gcc(source)).toContain('static assertion failed');
});

test('the bitmap lies at byte 48 of the memslot', () => {
  const slot = kvmUserfault.definition.structs!.find(({ name }) => name.includes('region2'))!;
  const { offsets, size } = layOut(slot);
  expect(offsets.get('userfault_bitmap')).toBe(48);
  expect(size).toBe(160);
});

test('file-uffd: what is printed', () => {
  expect(fileUffd.ioctlTable()).toMatchInlineSnapshot(`
    "ioctl               on           number      struct              does
    UFFDIO_REGISTER_FD  userfaultfd  0xc018aa0a  uffdio_register_fd  registers a whole file
        EINVAL: a file that has no page cache
        EBUSY: the file is registered already
    UFFDIO_INSERT       userfaultfd  0xc030aa0b  uffdio_insert       puts pages into the page cache and wakes the waiters
        EEXIST: the page is in the page cache
        EAGAIN: the file is changing
        ENOENT: not registered"
  `);
  expect(fileUffd.matrix()).toMatchInlineSnapshot(`
    "uapi                 vcpu-load  vcpu-store vcpu-atomic vcpu-fetch vcpu-walk  kernel-copy kernel-cached-pfn vmm-load   vmm-store  vmm-syscall external-mapping external-vm-readv external-vhost
    file-uffd            blocks     blocks     blocks      blocks     blocks     blocks      blocks            blocks     blocks     blocks      blocks           blocks            blocks"
  `);
  expect(exitOnMissing.header()).toMatchInlineSnapshot(`
    "/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
    /*
     * Improve KVM + userfaultfd performance via KVM_EXIT_MEMORY_FAULTs on stage-2 faults
     * Anish Moorthy, 2024-02: series v7
     * held, not merged
     *
     * Every number below is a placeholder: define it before including this file to choose another.
     */

    #ifndef _UAPI_EXIT_ON_MISSING_H
    #define _UAPI_EXIT_ON_MISSING_H

    #include <linux/ioctl.h>
    #include <linux/types.h>

    /* flags of the memslot */
    #ifndef KVM_MEM_EXIT_ON_MISSING
    #define KVM_MEM_EXIT_ON_MISSING 0x8
    #endif

    /* memory_fault of struct kvm_run: KVM_RUN has failed with EFAULT */
    struct kvm_exit_on_missing_fault { /* 24 bytes */
    	__u64 flags; /* 0 */
    	__u64 gpa; /* 8 */
    	__u64 size; /* 16 */
    };

    #endif /* _UAPI_EXIT_ON_MISSING_H */
    "
  `);
});
