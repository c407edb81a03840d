// The thread of a vCPU: waits for the word to begin, and runs its guest until it says that it is through.
import { parentPort, workerData } from 'node:worker_threads';
import { openVcpuExitHandler } from 'demand-paging/kvm';
import { KvmVcpu } from 'demand-paging/linux';

const { descriptor, run_bytes, token, start, donePort } = workerData;
const vcpu = KvmVcpu.adopt(descriptor, run_bytes);
const handler = token && openVcpuExitHandler(token, descriptor);
parentPort.postMessage({ kind: 'ready' });
Atomics.wait(new Int32Array(start), 0, 0);
for (;;) {
  handler?.enter();
  const errno = -vcpu.enter();
  const handled = handler ? handler.onExit(vcpu.run, errno) : 'unhandled';
  if (handled === 'reenter' || handled === 'complete-mmio') continue;
  const exit = vcpu.run.exit();
  const done = handled === 'unhandled' && exit.kind === 'io' && exit.port === donePort;
  const ended_ms = performance.timeOrigin + performance.now();
  parentPort.postMessage(
    done
      ? { kind: 'done', sum: vcpu.registers.rax, ended_ms }
      : { kind: 'failed', why: `${handled}, errno ${errno}, exit ${exit.kind}` },
  );
  break;
}
handler?.close();
vcpu.close();
