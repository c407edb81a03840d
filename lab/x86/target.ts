import { type Target } from '../machine/target.js';

/** An x86-64 machine whose emulated CPU has SVM with nested paging, so that its kernel has a KVM. */
export const x86: Target = {
  name: 'x86',
  debian: 'amd64',
  node: 'x64',
  qemu: { program: 'qemu-system-x86_64', debianPackage: 'qemu-system-x86' },
  kernelPackage: 'linux-image-cloud-amd64',
  userland: ['busybox-static'],
  hostNode: true,
  modules: ['virtio_pci', 'virtio_console', 'kvm_amd', 'vhost_vsock'],
  console: 'ttyS0',
  machine: ['-M', 'q35', '-cpu', 'max'],
  memory: 2048,
};
