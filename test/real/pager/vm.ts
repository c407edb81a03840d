import { type TestContext } from 'vitest';
import { Kvm, type KvmVm } from '../../../src/linux/index.js';

/** A VM; the test is skipped where there can be none. */
export function vmOrSkip(context: TestContext): KvmVm {
  try {
    using kvm = Kvm.open();
    return kvm.createVm();
  } catch (error) {
    return context.skip(`no KVM: ${String(error)}`);
  }
}
