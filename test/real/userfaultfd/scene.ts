import { beforeEach, expect, type TestContext } from 'vitest';
import {
  DemandPagingError,
  type Attachment,
  FaultBatch,
  type FaultPort,
  fileOffset,
  gpa,
  MemoryLayout,
  type MemoryKind,
  type Outcome,
  type RegionSpec,
  type Resolution,
  ResolutionBatch,
} from '../../../src/api/index.js';
import {
  userfaultfd,
  type UserfaultfdBackendOptions,
  openUserfaultfdPort,
  type UserfaultfdPortToken,
} from '../../../src/backends/userfaultfd/index.js';
import { pageSize } from '../../../src/linux/index.js';
import { Actor } from './actor.js';

export const PAGE = pageSize();
export const HUGE = 0x20_0000;
/** Generous: only there so that a hang fails instead of hanging. */
export const DEADLINE_MS = 20_000;

export interface Outcomes {
  readonly outcome: Outcome;
  readonly done: number;
  readonly errno: number;
}

/** Memory under a userfaultfd, its first shard's port opened here, and a thread to touch it. */
export class Scene implements AsyncDisposable {
  readonly attachment: Attachment;
  readonly port: FaultPort;
  readonly actor: Actor;
  readonly batch = new FaultBatch(64);

  private constructor(attachment: Attachment, port: FaultPort, actor: Actor) {
    this.attachment = attachment;
    this.port = port;
    this.actor = actor;
  }

  static async open(regions: readonly RegionSpec[], options: UserfaultfdBackendOptions = {}): Promise<Scene> {
    const attachment = await userfaultfd(options).attach(new MemoryLayout(regions));
    return new Scene(attachment, openShard(attachment), await Actor.start());
  }

  /** Where a page is. */
  at(page: number): number {
    return Number(this.attachment.layout.hvaOf(page));
  }

  /** The next rows, faults and events; at least one, or the test fails. */
  take(): readonly unknown[] {
    this.batch.clear();
    const deadline = performance.now() + DEADLINE_MS;
    while (this.batch.count === 0 && performance.now() < deadline)
      this.port.take(this.batch, 'block', DEADLINE_MS);
    expect(this.batch.count, 'something came').toBeGreaterThan(0);
    return rows(this.batch);
  }

  /** Reads everything until `actor` is through; what came. mremap, for one, waits for two events. */
  async until<T>(actor: Promise<T>): Promise<{ readonly value: T; readonly seen: readonly unknown[] }> {
    const seen: unknown[] = [];
    let over = false;
    const value = actor.finally(() => (over = true));
    while (!over) {
      this.batch.clear();
      this.port.take(this.batch, 'none', 0);
      seen.push(...rows(this.batch));
      if (this.batch.count === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    return { value: await value, seen };
  }

  resolve(resolution: Resolution): Outcomes {
    return resolveOn(this.port, resolution);
  }

  /** Puts a page full of `byte` at an offset of staging. */
  stage(byte: number, offset = 0, length = PAGE): number {
    this.port.staging.fill(byte, offset, offset + length);
    return offset;
  }

  /** Fills a page with `byte`, as the resolver would. */
  install(page: number, byte: number): void {
    expect(
      this.resolve({ verb: 'copy', pages: { first: page, count: 1 }, from: this.stage(byte) }),
    ).toMatchObject({ outcome: 'installed' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.port.close();
    await this.attachment.close(); // ends the registration: whoever still waits goes on
    await this.actor[Symbol.asyncDispose]();
  }
}

export function openShard(attachment: Attachment, shard = 0): FaultPort {
  const { port } = attachment.shards[shard]!;
  if (port.where !== 'worker') throw new Error('a port for workers was expected');
  return openUserfaultfdPort(port.token as UserfaultfdPortToken);
}

export function rows(batch: FaultBatch): readonly unknown[] {
  return Array.from({ length: batch.count }, (_, row) =>
    batch.isEvent(row) ? batch.event(row) : batch.fault(row),
  );
}

export function resolveOn(port: FaultPort, resolution: Resolution): Outcomes {
  const batch = new ResolutionBatch(1);
  batch.push(resolution);
  port.resolve(batch);
  return { outcome: batch.outcomeOf(0), done: batch.done[0]!, errno: batch.errno[0]! };
}

/** A region of `pages` pages, at guest-physical 0 unless said otherwise. */
export function region(
  pages: number,
  memory: MemoryKind = 'anonymous',
  given: Partial<RegionSpec> = {},
): RegionSpec {
  const size = memory === 'hugetlb' ? HUGE : PAGE;
  return {
    gpa: gpa(0),
    length: BigInt(pages * size),
    sourceOffset: fileOffset(0),
    memory,
    pageSize: size,
    ...given,
  };
}

/** Runs a test's body, or skips it with the reason when this host lacks what the options ask for. */
export async function openOrSkip(
  context: TestContext,
  regions: readonly RegionSpec[],
  options: UserfaultfdBackendOptions = {},
): Promise<Scene> {
  try {
    return await Scene.open(regions, options);
  } catch (error) {
    if (
      error instanceof DemandPagingError &&
      ['NO_PERMISSION', 'NO_DEVICE', 'NOT_SUPPORTED'].includes(error.code)
    )
      context.skip(error.message);
    throw error;
  }
}

/** Skips a test where this user can have no userfaultfd at all. */
export function needUserfaultfd(context: TestContext): void {
  const missing = userfaultfd()
    .probe()
    .list.find(({ met }) => !met);
  if (missing) context.skip(`${missing.what}: ${missing.found}`);
}

/** Skips every test of a file there, with the reason. */
export function skipWithoutUserfaultfd(): void {
  beforeEach(needUserfaultfd);
}
