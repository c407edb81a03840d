import { type KvmVcpu, x86UserMode } from '../linux/index.js';
import { type GuestSpace } from './guest-space.js';

/** User mode, long mode, interrupts off; paging through the guest's own tables. */
export function enterUserMode(vcpu: KvmVcpu, space: GuestSpace): void {
  const user = x86UserMode(space.pageTables);
  const { base, limit } = space.taskState;
  vcpu.setSpecialRegisters({
    ...user,
    tr: { ...user.cs!, base: BigInt(base), limit, selector: 0, dpl: 0, l: 0, s: 0, g: 0 },
  });
}
