import { parentPort } from 'node:worker_threads';
import { openVcpuExitHandler } from 'demand-paging/backends/composite';
import { arm64CoreRegister, KVM_EXIT, KvmVcpu } from 'demand-paging/linux';
import type { VcpuEnd, VcpuTask } from '../its/mission/vcpu-thread.js';

/**
 * Runs a vCPU until an exit that is its own business, and completes that: nothing of the vCPU's is left in
 * KVM.
 */
function run({ descriptor, run_bytes, token }: VcpuTask): VcpuEnd {
  using vcpu = KvmVcpu.adopt(descriptor, run_bytes);
  const handler = token && openVcpuExitHandler(token, descriptor);
  const enter = (): { readonly errno: number; readonly handled: string } => {
    handler?.enter();
    const errno = Math.abs(vcpu.enter());
    return { errno, handled: handler ? handler.onExit(vcpu.run, errno) : 'unhandled' };
  };
  let pageExits = 0;
  let ended = enter();
  while (ended.handled === 'reenter') {
    pageExits++;
    ended = enter();
  }
  const { exitReason } = vcpu.run;
  const failure = handler?.failure;
  if (exitReason === KVM_EXIT.MMIO) {
    // An access that was answered is finished by the next KVM_RUN, which this keeps from running the guest.
    vcpu.run.immediateExit = true;
    enter();
    vcpu.run.immediateExit = false;
  }
  handler?.close();
  return { ...ended, failure, exitReason, pageExits, x4: vcpu.register(arm64CoreRegister('x4')) };
}

parentPort!.on('message', (task: VcpuTask) => parentPort!.postMessage(run(task)));
