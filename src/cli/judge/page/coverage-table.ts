import { type AccessSite, type Effect } from '../../../api/index.js';
import { type JudgedCell, OUT_OF_REACH } from '../cell.js';
import { type MatrixDocument, type MatrixRow } from '../matrix.js';
import { EFFECTS } from './look.js';
import { html, type Markup } from './markup.js';
import { opener, type Popover, storyMarkup } from './popover.js';
import { groupedRows, isJudged, nameOf, scrolling } from './table.js';
import { propertyId } from './property-table.js';

const siteId = (row: number, site: AccessSite): string => `at-${row}-${site}`;

const effectOf = ({ declared }: MatrixRow, site: AccessSite): Effect =>
  declared?.coverage.find((row) => row.site === site)?.effect ?? 'unmediated';

const cellsAt = ({ cells }: MatrixRow, site: AccessSite): readonly JudgedCell[] =>
  cells.filter((cell) => cell.site === site);

/** Candidates by access sites: what a missing page does there, and what fails. */
export function coverageTable({ sites, rows }: MatrixDocument): Markup {
  const classes = [...new Set(sites.map((site) => site.class))];
  const head = html`<thead>
    <tr>
      <td></td>
      ${classes.map((name) => html`<th class="class" scope="colgroup" colspan="${sites.filter((site) => site.class === name).length}">${name}</th>`)}
    </tr>
    <tr>
      <th class="corner" scope="col">UAPI</th>
      ${sites.map(({ site, class: of }) => html`<th scope="col">${site.slice(of.length + 1)}</th>`)}
    </tr>
  </thead>`;
  const body = groupedRows(rows, sites.length, (row, at) => sites.map(({ site }) => cellOf(row, at, site)));
  return scrolling(
    'Coverage: UAPIs by access sites',
    html`<table>
      ${head}${body}
    </table>`,
  );
}

function cellOf(row: MatrixRow, at: number, site: AccessSite): Markup {
  const effect = EFFECTS[effectOf(row, site)];
  const fails = cellsAt(row, site).filter(({ result }) => result.verdict === 'fails').length;
  const beyond = row.declared?.sites.includes(site) === false && effect.sign !== 'open';
  const label = `${effect.sign}${fails > 0 ? ` ✗${fails}` : ''}${beyond ? '*' : ''}`;
  const says = `${nameOf(row)} at ${site}: ${effect.means}${fails > 0 ? `; ${fails} properties fail` : ''}${beyond ? '; declared, and not tried on this host' : ''}`;
  return opener(siteId(at, site), fails > 0 ? 'fails' : effect.look, label, says);
}

/** What opens from its cells. */
export const coveragePopovers = ({ sites, rows }: MatrixDocument): Popover[] =>
  rows.flatMap((row, at) => (isJudged(row) ? sites.map(({ site }) => sitePopover(row, at, site)) : []));

function sitePopover(row: MatrixRow, at: number, site: AccessSite): Popover {
  const declared = row.declared?.coverage.find((candidate) => candidate.site === site);
  const effect = effectOf(row, site);
  const cells = cellsAt(row, site);
  const of = (verdict: JudgedCell['result']['verdict']): readonly JudgedCell[] =>
    cells.filter(({ result }) => result.verdict === verdict);
  const witness = cells.find(
    ({ result }) => result.verdict === 'unmediated' && result.story.length > 0,
  )?.result;
  const beyond = cells.some(
    ({ result }) => result.verdict === 'not-applicable' && result.reason === OUT_OF_REACH,
  );
  const holding = of('holds').map(({ property }) => property);
  const body = html`<p>
      <span class="verdict ${EFFECTS[effect].look}">${effect}</span> ${EFFECTS[effect].means}.
      ${declared && effect !== 'unmediated' ? html`<span class="soft">In units of ${declared.granule_bytes} bytes; the fault ${declared.address === 'exact' ? 'says which page' : 'does not say which page'}; ${declared.evidence}.</span>` : ''}
    </p>
    ${
      witness?.verdict === 'unmediated'
        ? html`<p>${witness.what}:</p>
            ${storyMarkup(witness.story)}`
        : ''
    }
    ${beyond ? html`<p class="soft">${OUT_OF_REACH} on this host.</p>` : ''}
    ${
      of('fails').length > 0
        ? html`<p>Fails here:</p>
            <ul>
              ${of('fails').map(({ property, result }) => html`<li><button class="link plain" popovertarget="${propertyId(at, property)}">${property}</button>${result.verdict === 'fails' ? `: ${result.what}` : ''}</li>`)}
            </ul>`
        : ''
    }
    ${holding.length > 0 ? html`<p>Holds here: ${holding.join(', ')}.</p>` : ''}`;
  return { id: siteId(at, site), title: `${nameOf(row)} at ${site}`, body };
}
