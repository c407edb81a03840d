import { type AccessSite, type Effect } from '../../../api/index.js';
import { formatTrace, resultText, SKIPPED_TEXT } from '../../../conformance/index.js';
import { type CellResult } from '../cell.js';
import { type MatrixDocument, type MatrixRow } from '../matrix.js';
import { EFFECTS } from './look.js';
import { html, type Markup } from './markup.js';
import { opener, type Popover, traceMarkup } from './popover.js';
import { groupedRows, isEvaluated, nameOf, scrolling } from './table.js';
import { propertyId } from './property-table.js';

const siteId = (row: number, site: AccessSite): string => `at-${row}-${site}`;

const effectOf = ({ declared }: MatrixRow, site: AccessSite): Effect =>
  declared?.coverage.find((row) => row.site === site)?.effect ?? 'unmediated';

const cellsAt = ({ cells }: MatrixRow, site: AccessSite): readonly CellResult[] =>
  cells.filter((cell) => cell.site === site);

/** Targets by access sites: what a missing page does there, and what fails. */
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
  const fails = cellsAt(row, site).filter(({ outcome }) => outcome === 'fails').length;
  const beyond = row.declared?.sites.includes(site) === false && effect.sign !== 'open';
  const label = `${effect.sign}${fails > 0 ? ` ✗${fails}` : ''}${beyond ? '*' : ''}`;
  const says = `${nameOf(row)} at ${site}: ${effect.means}${fails > 0 ? `; ${fails} properties fail` : ''}${beyond ? '; declared, and not tried on this host' : ''}`;
  return opener(siteId(at, site), fails > 0 ? 'fails' : effect.look, label, says);
}

/** What opens from its cells. */
export const coveragePopovers = ({ sites, rows }: MatrixDocument): Popover[] =>
  rows.flatMap((row, at) => (isEvaluated(row) ? sites.map(({ site }) => sitePopover(row, at, site)) : []));

function sitePopover(row: MatrixRow, at: number, site: AccessSite): Popover {
  const declared = row.declared?.coverage.find((target) => target.site === site);
  const effect = effectOf(row, site);
  const cells = cellsAt(row, site);
  const of = (outcome: CellResult['outcome']): readonly CellResult[] =>
    cells.filter((cell) => cell.outcome === outcome);
  const witness = cells.find((cell) => cell.outcome === 'unmediated' && cell.failure !== undefined);
  const beyond = of('skipped').length > 0;
  const holding = of('holds').map(({ property }) => property);
  const body = html`<p>
      <span class="outcome ${EFFECTS[effect].look}">${effect}</span> ${EFFECTS[effect].means}.
      ${declared && effect !== 'unmediated' ? html`<span class="soft">In units of ${declared.granule_bytes} bytes; the fault ${declared.address === 'exact' ? 'says which page' : 'does not say which page'}; ${declared.evidence}.</span>` : ''}
    </p>
    ${
      witness?.outcome === 'unmediated'
        ? html`<p>${resultText(witness)}:</p>
            ${traceMarkup(formatTrace(witness.trace))}`
        : ''
    }
    ${beyond ? html`<p class="soft">${SKIPPED_TEXT} on this host.</p>` : ''}
    ${
      of('fails').length > 0
        ? html`<p>Fails here:</p>
            <ul>
              ${of('fails').map((cell) => html`<li><button class="link plain" popovertarget="${propertyId(at, cell.property)}">${cell.property}</button>: ${resultText(cell)}</li>`)}
            </ul>`
        : ''
    }
    ${holding.length > 0 ? html`<p>Holds here: ${holding.join(', ')}.</p>` : ''}`;
  return { id: siteId(at, site), title: `${nameOf(row)} at ${site}`, body };
}
