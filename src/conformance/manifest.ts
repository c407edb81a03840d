import { type Manifest } from './property.js';
import { layoutOf } from './stepped-environment.js';
import { type Subject } from './subject.js';

/** What a subject declares, asked of it once. */
export async function openManifest(subject: Subject): Promise<Manifest> {
  const attachment = await subject.backend().attach(layoutOf(subject, 1));
  const { supports, coverage, memory } = attachment;
  await attachment.close();
  return {
    supports,
    coverage,
    sites: subject.sites,
    readOnly: subject.readOnly ?? [],
    deterministic: subject.deterministic,
    discards: subject.deterministic || subject.discardSite !== undefined,
    killable: subject.deterministic ? subject.sites : subject.killable,
    mayFail: subject.deterministic ? subject.sites : subject.mayFail,
    local: memory !== undefined,
  };
}
