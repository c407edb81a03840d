/**
 * The code of the guest's vCPUs, at CPL 3 in long mode with I/O allowed. Each piece does one thing and
 * reports its end by port I/O. Position-independent.
 *
 *   copy:    jrcxz 1f;  0: mov rax,[rsi]; mov [rdi],rax; add rsi,8; add rdi,8; dec rcx; jnz 0b
 *            1: mov rcx,rdx; jrcxz 3f;  2: mov al,[rsi]; mov [rdi],al; inc rsi; inc rdi; dec rcx; jnz 2b
 *            3: out 0x80,al
 *   add:     xor eax,eax; lock xadd [rsi],rax; mov [rdi],rax; add rsi,8; add rdi,8; dec rcx; jnz add; out 0x80,al
 *   swap:    mov rax,[rsi]; xchg [rdi],rax; add rsi,8; add rdi,8; dec rcx; jnz swap; out 0x80,al
 *   walk:    mov rax,[rsi]; out 0x80,al
 *   fetch:   jmp rsi
 *   arrived: out 0x80,al
 *   nothing: out 0x81,al
 *   outs:    rep outsd; out 0x80,al
 *   ins:     rep insd; out 0x80,al
 *   word:    mov eax,[rsi]; mov [rdi],eax; out 0x80,al
 */
const CODE =
  'e313488b064889074883c6084883c70848ffc975ed4889d1e30f8a06880748ffc648ffc748ffc975f1e680' +
  '31c0f0480fc1064889074883c6084883c70848ffc975e9e680' +
  '488b064887074883c6084883c70848ffc975ede680' +
  '488b06e680' +
  'ffe6' +
  'e680' +
  'e681' +
  'f36fe680' +
  'f36de680' +
  '8b068907e680';

export const GUEST_CODE: Uint8Array = Buffer.from(CODE, 'hex');

/** The offset of each piece. */
export const ENTRY = {
  copy: 0x00,
  add: 0x2b,
  swap: 0x44,
  walk: 0x59,
  fetch: 0x5e,
  arrived: 0x60,
  nothing: 0x62,
  outs: 0x64,
  ins: 0x68,
  word: 0x6c,
} as const;

export const PORT = { done: 0x80, nothing: 0x81, data: 0x90 } as const;
