import { type Attachment, type Backend, type PortPlace } from 'demand-paging';
import { type Around } from './subjects.js';

/** A fault that is put into a backend, and the subject that it is put into. */
export interface Mutant {
  readonly subject: string;
  readonly name: string;
}

type AttachmentMutant = (inner: Attachment) => Partial<Attachment>;

/** What is wrong on the control side. */
const ATTACHMENTS: Readonly<Record<string, AttachmentMutant>> = {
  'discard does nothing': () => ({ discard: () => {} }),
  'discard leaves out the last page': (inner) => ({
    discard: ({ first, count }) => (count > 1 ? inner.discard({ first, count: count - 1 }) : undefined),
  }),
  'vCPUs never hear of a freeze': () => ({ freeze: () => Promise.resolve() }),
};

const COPY = 'userfaultfd, copy';
const of = (subject: string, ...names: readonly string[]): readonly Mutant[] =>
  names.map((name) => ({ subject, name }));

/** Names of port mutants are those of fixtures/mutant-port.mjs. */
export const MUTANTS: readonly Mutant[] = [
  ...of(
    COPY,
    'wakes are lost',
    'every fourth install wakes no accessor',
    'every eighth copy is a page of zeros',
    'every eighth copy is torn',
    'pages come from the next place',
    'poison does nothing',
    'zeros are not installed but said to be',
    'write protection does nothing',
    'every sixth fault is lost',
    'discard does nothing',
    'discard leaves out the last page',
  ),
  ...of('guest-memfd', 'freezing does nothing', 'discard does nothing'),
  ...of('kvm-exit', 'vCPUs never hear of a freeze', 'every eighth copy is a page of zeros'),
  ...of('composite', 'every sixth fault is lost'),
];

export function mutantOf({ name }: Mutant): Around {
  const control = ATTACHMENTS[name];
  return (backend): Backend => ({
    name: `${backend.name}, ${name}`,
    probe: () => backend.probe(),
    attach: async (layout) => {
      const inner = await backend.attach(layout);
      return forwarding(inner, control ? control(inner) : { shards: shardsOf(inner, name) });
    },
  });
}

/** The shards with ports that are opened by the module of mutants. */
const shardsOf = (inner: Attachment, mutant: string): Attachment['shards'] =>
  inner.shards.map((shard) => ({
    pages: shard.pages,
    kick: () => shard.kick(),
    get port(): PortPlace {
      const { port } = shard;
      if (port.where !== 'worker') throw new TypeError('mutants are put about ports of workers');
      return {
        where: 'worker',
        module: new URL('./fixtures/mutant-port.mjs', import.meta.url).href,
        export: 'openMutantPort',
        token: { place: { export: port.export, token: port.token }, mutant },
      };
    },
  }));

/** An attachment with some members replaced, and all others of the inner one, optional ones included. */
function forwarding(inner: Attachment, overrides: Partial<Attachment>): Attachment {
  return new Proxy(inner, {
    get(target, key) {
      if (Object.hasOwn(overrides, key)) return Reflect.get(overrides, key) as unknown;
      const value = Reflect.get(target, key, target) as unknown;
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}
