import {
  type Backend,
  type Coverage,
  type MemoryLayout,
  type PageStates,
  requirements,
  SITE_NAMES,
} from '../api/index.js';
import { blocking, memoryBackend, watchedSites, type SiteMechanisms } from '../backends/memory/index.js';
import { type SteppedSubject } from '../conformance/index.js';
import { cHeader } from './c-header.js';
import { checkStruct, ioctlNumber } from './c-layout.js';
import { type KernelSide, type Surroundings, type UapiDefinition, type UapiSource } from './definition.js';
import { coverageHead, coverageRow, ioctlTable } from './plain-text.js';
import { UapiAttachment } from './uapi-attachment.js';

/** How a prototype is put to use: its options, and whether a userfaultfd stands beside it. Default: alone, with its defaults. */
export type UapiUse<Options extends object> = Partial<Options> & Partial<Surroundings>;

/** A prototype of a UAPI: a backend to be checked, and what an RFC says about it. */
export interface Uapi<Options extends object> {
  readonly name: string;
  readonly source: UapiSource;
  readonly definition: UapiDefinition<Options>;
  /** The prototype on a model kernel of its own, one for each attachment. Never blocks; runs anywhere. */
  backend(use?: UapiUse<Options>): UapiBackend;
  /** What the conformance suite takes. */
  subject(use?: UapiUse<Options>): SteppedSubject;
  /** What it declares, site by site, for the kind of memory it is run on. */
  coverage(use?: UapiUse<Options>): Coverage;
  /** The C header: constants, structures, ioctls. */
  header(): string;
  /** The ioctls with their numbers and errors, in plain text. */
  ioctlTable(): string;
  /** Its row of the coverage matrix, under the matrix's head, in plain text. */
  matrix(use?: UapiUse<Options>): string;
}

export interface UapiBackend extends Backend {
  attach(layout: MemoryLayout, states?: PageStates): Promise<UapiAttachment>;
}

const STAGING_BYTES = 64 * 1024;

/**
 * Makes a prototype from its definition.
 *
 * Errors: TypeError for a name or a reference that is not one (a structure that an ioctl names and the definition lacks,
 * a name used twice, a definition without a verb that brings contents); RangeError for a structure with
 * implicit padding and for numbers out of bounds.
 */
export function defineUapi<Options extends object>(definition: UapiDefinition<Options>): Uapi<Options> {
  check(definition);
  const { name, source, defaults } = definition;
  const backend = (use: UapiUse<Options> = {}): UapiBackend => {
    return backendOf(definition, { ...defaults, ...use }, surroundingsOf(use));
  };
  const coverage = (use: UapiUse<Options> = {}): Coverage => {
    const surroundings = surroundingsOf(use);
    return coverageOf(sitesOf(definition.kernelSide({ ...defaults, ...use }, surroundings), surroundings));
  };
  const memory = definition.memory ?? 'anonymous';
  return {
    name,
    source,
    definition,
    backend,
    coverage,
    subject: (use = {}) => ({
      name: nameOf(name, use.userfaultfd ?? false),
      deterministic: true,
      memory,
      sites: reachable(memory !== 'anonymous'),
      backend: () => backend(use),
      stepping: (attachment) => (attachment as UapiAttachment).stepping,
    }),
    header: () => cHeader(definition),
    ioctlTable: () => ioctlTable(definition),
    matrix: (use = {}) =>
      `${coverageHead()}\n${coverageRow(nameOf(name, use.userfaultfd ?? false), coverage(use))}`,
  };
}

type Described = Pick<UapiDefinition<object>, 'name' | 'constants' | 'structs' | 'ioctls' | 'verbs'>;

const surroundingsOf = ({
  userfaultfd = false,
  wakesOnExist = true,
}: Partial<Surroundings>): Surroundings => ({
  userfaultfd,
  wakesOnExist,
});

const nameOf = (name: string, userfaultfd: boolean): string => (userfaultfd ? `${name}+uffd` : name);

/** Sites that can be exercised: private memory has no second mapping. */
const reachable = (shared: boolean): SteppedSubject['sites'] =>
  SITE_NAMES.filter((site) => site !== 'kernel-visibility' && (shared || site !== 'external-mapping'));

function backendOf<Options extends object>(
  definition: UapiDefinition<Options>,
  options: Options,
  surroundings: Surroundings,
): UapiBackend {
  const { userfaultfd } = surroundings;
  return {
    name: nameOf(definition.name, userfaultfd),
    probe: () => requirements([]),
    async attach(layout, states) {
      const side = definition.kernelSide(options, surroundings);
      const sites = sitesOf(side, surroundings);
      // Beside a userfaultfd every verb and event of its own is there; alone, what the proposal has.
      const own = userfaultfd
        ? {}
        : {
            verbs: definition.verbs,
            events: definition.events ?? [],
            minor: false,
            install: 'copy' as const,
          };
      const model = await memoryBackend({
        name: definition.name,
        sites,
        staging_bytes: STAGING_BYTES,
        ...own,
      }).attach(layout, states);
      return new UapiAttachment(
        {
          kernel: model.kernel,
          // Whether a page is physically there says nothing about a presence of the proposal's own.
          supports: { ...model.supports, residency: userfaultfd && model.supports.residency },
          coverage: coverageOf(sites),
          staging_bytes: STAGING_BYTES,
        },
        side,
        surroundings,
      );
    },
  };
}

/** A userfaultfd stands behind whatever the proposal puts before a site of the VMM's mapping. */
function sitesOf(side: KernelSide, { userfaultfd }: Surroundings): SiteMechanisms {
  if (!userfaultfd) return side.sites;
  const behind = watchedSites(() => blocking());
  return Object.fromEntries(
    SITE_NAMES.map((site) => [site, [...(side.sites[site] ?? []), ...(behind[site] ?? [])]] as const).filter(
      ([, chain]) => chain.length > 0,
    ),
  );
}

/** Of every site, a second mapping's included: also where the prototype is run on memory that cannot have one. */
function coverageOf(sites: SiteMechanisms): Coverage {
  return reachable(true).map((site) => {
    const first = sites[site]?.[0];
    return {
      site,
      effect: first?.effect ?? 'unmediated',
      granule_bytes: 4096,
      address: first?.address ?? 'none',
      evidence: 'declared',
    };
  });
}

function check({ name, constants = [], structs = [], ioctls = [], verbs }: Described): void {
  if (!/^[a-z][a-z0-9-]*$/.test(name)) throw new TypeError(`'${name}' is no name in kebab-case`);
  const names = [...constants, ...structs, ...ioctls].map((named) => named.name);
  for (const [at, each] of names.entries()) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(each))
      throw new TypeError(`${name}: '${each}' is no identifier in C`);
    if (names.indexOf(each) !== at) throw new TypeError(`${name} defines ${each} twice`);
  }
  structs.forEach(checkStruct);
  if (!verbs.includes('copy')) throw new TypeError(`${name} has no verb that brings contents`);
  const numbers = new Map<number, string>();
  for (const ioctl of ioctls) {
    const struct = structs.find((each) => each.name === ioctl.struct);
    if ((ioctl.direction === 'none') !== (ioctl.struct === undefined) || (ioctl.struct && !struct))
      throw new TypeError(
        `${ioctl.name} takes ${ioctl.struct ?? 'nothing'}, which does not fit '${ioctl.direction}'`,
      );
    if (!(Number.isInteger(ioctl.number) && ioctl.number >= 0 && ioctl.number < 256))
      throw new RangeError(`${ioctl.name} has number ${ioctl.number}; it takes 0 to 255`);
    const number = ioctlNumber(ioctl, struct);
    const other = numbers.get(number);
    if (other) throw new TypeError(`${ioctl.name} has the number of ${other}`);
    numbers.set(number, ioctl.name);
  }
}
