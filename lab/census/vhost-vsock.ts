import { closeSync, openSync } from 'node:fs';
import { EventFd, NativeBlock, raw } from 'demand-paging/linux';

/* Source: linux/vhost.h, linux/vhost_types.h, linux/virtio_vsock.h. */
const SET_OWNER = 0xaf01;
const SET_FEATURES = 0x4008_af00;
const SET_MEM_TABLE = 0x4008_af03;
const SET_VRING_NUM = 0x4008_af10;
const SET_VRING_ADDR = 0x4028_af11;
const SET_VRING_KICK = 0x4008_af20;
const SET_VRING_CALL = 0x4008_af21;
const VSOCK_SET_GUEST_CID = 0x4008_af60;
const VSOCK_SET_RUNNING = 0x4004_af61;
const VIRTIO_F_VERSION_1 = 1n << 32n;
const GUEST_CID = 3n;

/** Where a virtqueue lies: addresses in this process. */
export interface Ring {
  readonly descriptors: number;
  readonly available: number;
  readonly used: number;
}

/** The queues that vhost fills and that it empties, in the device's order. */
export interface Rings {
  readonly toGuest: Ring;
  readonly fromGuest: Ring;
}

const RING_ENTRIES = 8;

/**
 * A vhost-vsock device: a part of the kernel that is not KVM and reaches guest memory by itself, on a thread
 * of its own. Needs the module vhost_vsock.
 */
export class VhostVsock implements Disposable {
  readonly #fd: number;
  readonly #argument = new NativeBlock(64);
  readonly #kicks = [EventFd.create(), EventFd.create()] as const;
  readonly #calls = [EventFd.create(), EventFd.create()] as const;

  /** Throws where there is no such device. */
  constructor(
    memory: { readonly gpa: number; readonly length: number; readonly userspace: number },
    rings: Rings,
  ) {
    this.#fd = openSync('/dev/vhost-vsock', 'r+');
    this.#ioctl(SET_OWNER, 'SET_OWNER');
    this.#set64(0, VIRTIO_F_VERSION_1);
    this.#ioctl(SET_FEATURES, 'SET_FEATURES');
    this.#set32(0, 1); // regions
    this.#set32(4, 0);
    this.#set64(8, BigInt(memory.gpa));
    this.#set64(16, BigInt(memory.length));
    this.#set64(24, BigInt(memory.userspace));
    this.#set64(32, 0n);
    this.#ioctl(SET_MEM_TABLE, 'SET_MEM_TABLE');
    [rings.toGuest, rings.fromGuest].forEach((ring, index) => this.#setRing(index, ring));
    this.#set64(0, GUEST_CID);
    this.#ioctl(VSOCK_SET_GUEST_CID, 'SET_GUEST_CID');
  }

  /** The device looks at its rings; an ioctl of the VMM's thread. */
  start(): void {
    this.#set32(0, 1);
    this.#ioctl(VSOCK_SET_RUNNING, 'SET_RUNNING');
  }

  /** Tells the device's thread of what the guest made available. */
  kick(): void {
    this.#kicks[1].ring();
  }

  /** Readable once the device has used what was made available. */
  get called(): number {
    return this.#calls[1].fd;
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
    for (const event of [...this.#kicks, ...this.#calls]) event.close();
    this.#argument.free();
  }

  #setRing(index: number, { descriptors, available, used }: Ring): void {
    this.#set32(0, index);
    this.#set32(4, RING_ENTRIES);
    this.#ioctl(SET_VRING_NUM, 'SET_VRING_NUM');
    this.#set32(4, 0); // flags
    this.#set64(8, BigInt(descriptors));
    this.#set64(16, BigInt(used));
    this.#set64(24, BigInt(available));
    this.#set64(32, 0n);
    this.#ioctl(SET_VRING_ADDR, 'SET_VRING_ADDR');
    this.#set32(4, this.#kicks[index]!.fd);
    this.#ioctl(SET_VRING_KICK, 'SET_VRING_KICK');
    this.#set32(4, this.#calls[index]!.fd);
    this.#ioctl(SET_VRING_CALL, 'SET_VRING_CALL');
  }

  #set32(at: number, value: number): void {
    this.#argument.view.setUint32(at, value, true);
  }

  #set64(at: number, value: bigint): void {
    this.#argument.view.setBigUint64(at, value, true);
  }

  #ioctl(request: number, name: string): void {
    const result = raw.ioctl(this.#fd, request, this.#argument.address);
    if (result < 0) throw new Error(`VHOST_${name}: errno ${-result}`);
  }
}
