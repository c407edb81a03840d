import { type Target } from '../machine/target.js';

/** An arm64 machine whose emulated CPU has EL2, so that its kernel has a KVM with vGICv3 and ITS. */
export const arm64: Target = {
  name: 'arm64',
  debian: 'arm64',
  node: 'arm64',
  qemu: { program: 'qemu-system-aarch64', debianPackage: 'qemu-system-arm' },
  kernelPackage: 'linux-image-cloud-arm64',
  userland: ['busybox-static', 'libc6', 'libstdc++6', 'libgcc-s1', 'libatomic1'],
  hostNode: false,
  modules: ['virtio_pci', 'virtio_console', 'vhost_vsock'],
  console: 'ttyAMA0',
  // Pointer authentication by QEMU's own cipher: the architected one costs an emulated guest dearly.
  machine: ['-M', 'virt,virtualization=on,gic-version=3', '-cpu', 'max,pauth-impdef=on'],
  memory: 2048,
};
