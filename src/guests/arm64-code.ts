/**
 * The code of the guest's vCPUs, at EL1 with the MMU on. Each piece does one thing and reports its end by a
 * store to an address without memory; KVM continues after that store, so the next piece is the one in x9. x0:
 * from, x1: to, x2: words of eight bytes, x3: bytes after them, x10: an address without memory, x12: `done`.
 * Position-independent; no access has writeback addressing, which KVM cannot emulate.
 *
 *   done: str xzr,[x10]
 *   idle: br x9
 *   copy: cbz x2,1f;  0: ldr x4,[x0]; str x4,[x1]; add x0,x0,#8; add x1,x1,#8; sub x2,x2,#1; cbnz x2,0b
 *         1: cbz x3,done;  2: ldrb w4,[x0]; strb w4,[x1]; add x0,x0,#1; add x1,x1,#1; sub x3,x3,#1; cbnz x3,2b; b done
 *   add:  ldadd xzr,x4,[x0]; str x4,[x1]; add x0,x0,#8; add x1,x1,#8; sub x2,x2,#1; cbnz x2,add; b done
 *   swap: ldr x4,[x0]; swp x4,x5,[x1]; add x0,x0,#8; add x1,x1,#8; sub x2,x2,#1; cbnz x2,swap; b done
 *   walk: ldr x4,[x0]; b done
 *   fetch: mov x9,x12; br x0
 *   word: ldr w4,[x0]; str w4,[x1]; b done
 */
export const ARM64_CODE = Uint32Array.of(
  ...[0xf900015f, 0xd61f0120],
  ...[0xb40000e2, 0xf9400004, 0xf9000024, 0x91002000, 0x91002021, 0xd1000442, 0xb5ffff62],
  ...[0xb4fffee3, 0x39400004, 0x39000024, 0x91000400, 0x91000421, 0xd1000463, 0xb5ffff63, 0x17fffff0],
  ...[0xf83f0004, 0xf9000024, 0x91002000, 0x91002021, 0xd1000442, 0xb5ffff62, 0x17ffffe9],
  ...[0xf9400004, 0xf8248025, 0x91002000, 0x91002021, 0xd1000442, 0xb5ffff62, 0x17ffffe2],
  ...[0xf9400004, 0x17ffffe0],
  ...[0xaa0c03e9, 0xd61f0000],
  ...[0xb9400004, 0xb9000024, 0x17ffffdb],
);

/**
 * The handler of every exception that the guest takes: it reports it by a store to x11 and continues as
 * `idle`.
 */
export const ARM64_VECTOR = Uint32Array.of(0xf900017f, 0xd61f0120);

/** Entry points, in bytes. */
export const ARM64_ENTRY = {
  done: 0x00,
  idle: 0x04,
  copy: 0x08,
  add: 0x44,
  swap: 0x60,
  walk: 0x7c,
  fetch: 0x84,
  word: 0x8c,
} as const;
