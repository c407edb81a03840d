// The thread of a vCPU: waits for the word to begin, and runs its guest until it says that it is through.
import { parentPort, workerData } from 'node:worker_threads';
import { openVcpuGate } from 'demand-paging/kvm';
import { KvmVcpu } from 'demand-paging/linux';

const { descriptor, run_bytes, token, start, donePort } = workerData;
const vcpu = KvmVcpu.adopt(descriptor, run_bytes);
const gate = token && openVcpuGate(token, descriptor);
parentPort.postMessage({ kind: 'ready' });
Atomics.wait(new Int32Array(start), 0, 0);
for (;;) {
  gate?.enter();
  const errno = -vcpu.enter();
  const verdict = gate ? gate.onExit(vcpu.run, errno) : 'not-mine';
  if (verdict === 'again' || verdict === 'complete-mmio') continue;
  const exit = vcpu.run.exit();
  const done = verdict === 'not-mine' && exit.kind === 'io' && exit.port === donePort;
  const ended_ms = performance.timeOrigin + performance.now();
  parentPort.postMessage(
    done
      ? { kind: 'done', sum: vcpu.registers.rax, ended_ms }
      : { kind: 'failed', why: `${verdict}, errno ${errno}, exit ${exit.kind}` },
  );
  break;
}
gate?.close();
vcpu.close();
