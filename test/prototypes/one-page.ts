import { fileOffset, gpa, type MemoryKind, MemoryLayout } from 'demand-paging';

const PAGE_BYTES = 4096;

/** A layout of a few pages. */
export const onePage = (memory: MemoryKind = 'anonymous', pages = 1): MemoryLayout =>
  new MemoryLayout([
    {
      gpa: gpa(0x4000_0000),
      length: BigInt(pages * PAGE_BYTES),
      sourceOffset: fileOffset(0),
      memory,
      pageSize: PAGE_BYTES,
    },
  ]);
