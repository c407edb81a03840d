/** The page's own style: no font, image or script comes from elsewhere. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --paper: light-dark(#fcfcfa, #16181b);
  --panel: light-dark(#fff, #1e2125);
  --ink: light-dark(#1c1e21, #e6e6e3);
  --soft: light-dark(#5b6067, #a2a7ae);
  --line: light-dark(#dcdcd6, #363b41);
  --accent: light-dark(#1f5fa8, #7db4f0);
  --holds: light-dark(#1d7a46, #6fcf97);
  --holds-back: light-dark(#e3f3e8, #1a3425);
  --fails: light-dark(#b3212d, #ff8d8d);
  --fails-back: light-dark(#fbe1e1, #4a1c20);
  --open: light-dark(#8a5300, #f0b95a);
  --open-back: light-dark(#fdeecf, #3f2e10);
  --exits: light-dark(#2b5597, #9cc2f5);
  --exits-back: light-dark(#e2ebf8, #1c2c45);
  --errors: light-dark(#6d3a8f, #d3a6ef);
  --errors-back: light-dark(#f1e6f8, #34213f);
  --series-1: light-dark(#1f5fa8, #7db4f0);
  --series-2: light-dark(#b3521d, #f0a070);
  --series-3: light-dark(#1d7a46, #6fcf97);
  --series-4: light-dark(#8a3a8f, #dba6e4);
  --series-5: light-dark(#6b6413, #d8cf6a);
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif;
}
main, header.page, footer { max-width: 100rem; margin: 0 auto; padding: 0 clamp(.9rem, 3vw, 2.5rem); }
header.page { padding-top: 2.2rem; }
h1 { font-size: clamp(1.5rem, 3.2vw, 2.2rem); line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.015em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .4rem; letter-spacing: -.01em; }
h3 { font-size: 1.02rem; margin: 0 0 .3rem; }
p { margin: .4rem 0 .8rem; max-width: 62rem; }
.soft { color: var(--soft); }
a { color: var(--accent); }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; list-style: none; padding: 0; margin: .8rem 0 0; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }

.facts { display: flex; flex-wrap: wrap; gap: .2rem 1.6rem; margin: 1rem 0 0; padding: 0; }
.facts div { display: flex; gap: .45rem; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; }
.totals { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .7rem; margin: 1.4rem 0 0; padding: 0; list-style: none; }
.totals li { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .6rem .9rem; }
.totals b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }

.legend { display: flex; flex-wrap: wrap; gap: .4rem 1rem; list-style: none; padding: 0; margin: .3rem 0 .9rem; font-size: .88rem; }
.chip { display: inline-block; min-width: 1.5rem; text-align: center; border-radius: 4px; padding: 0 .35rem; }

.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; background: var(--panel); }
table { border-collapse: separate; border-spacing: 0; font-size: .84rem; }
.scroll > table { width: 100%; }
th, td { padding: .16rem .22rem; border-bottom: 1px solid var(--line); text-align: center; white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { font-weight: 600; vertical-align: bottom; background: var(--panel); }
thead th.class { border-left: 1px solid var(--line); color: var(--soft); font-weight: 500; letter-spacing: .03em; }
th.tall { height: 12.6rem; padding: .5rem .1rem; font-weight: 500; }
th.tall span { writing-mode: vertical-rl; transform: rotate(180deg); display: inline-block; white-space: normal; max-height: 12rem; line-height: 1.15; text-align: left; }
th[scope=row] {
  position: sticky; left: 0; z-index: 1; background: var(--panel); text-align: left; font-weight: 550;
  border-right: 1px solid var(--line); padding: .2rem .7rem; min-width: 13rem; max-width: 19rem; white-space: normal; line-height: 1.3;
}
th[scope=row] small { display: block; color: var(--soft); font-weight: 400; font-size: .8em; }
thead th.corner { position: sticky; left: 0; z-index: 2; text-align: left; border-right: 1px solid var(--line); padding-left: .7rem; }
tr.group th { position: static; background: var(--paper); color: var(--soft); font-weight: 600; font-size: .78rem; letter-spacing: .06em; text-transform: uppercase; text-align: left; padding: .5rem .7rem .2rem; border-right: 0; }
tr.group th span { position: sticky; left: .7rem; }
tbody tr:hover > th[scope=row] { color: var(--accent); }

button.cell {
  font: inherit; color: inherit; border: 0; cursor: pointer; width: 100%; min-width: 2.1rem; border-radius: 4px;
  padding: .14rem .3rem; font-variant-numeric: tabular-nums;
}
table.dense :is(th, td) { padding-inline: .1rem; }
table.dense th[scope=row] { padding-inline: .7rem .4rem; min-width: 11rem; max-width: 12.5rem; }
table.dense button.cell { min-width: 1.75rem; padding-inline: .1rem; font-size: .94em; }
button.cell:hover { outline: 2px solid var(--accent); outline-offset: -1px; }
.holds { color: var(--holds) !important; background: var(--holds-back); }
.fails { color: var(--fails) !important; background: var(--fails-back); font-weight: 650 !important; }
.open { color: var(--open) !important; background: repeating-linear-gradient(135deg, var(--open-back) 0 5px, transparent 5px 8px), var(--panel); }
.exits { color: var(--exits) !important; background: var(--exits-back); }
.errors { color: var(--errors) !important; background: var(--errors-back); }
.none { color: var(--soft) !important; background: transparent; }

[popover] {
  color: var(--ink); background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 0;
  width: min(54rem, calc(100vw - 1.4rem)); max-height: min(44rem, calc(100vh - 3rem)); overflow: auto;
  box-shadow: 0 12px 48px rgb(0 0 0 / .28); margin: auto;
}
[popover]::backdrop { background: rgb(0 0 0 / .38); }
[popover] header { position: sticky; top: 0; background: var(--panel); display: flex; gap: 1rem; justify-content: space-between; align-items: start; padding: .8rem 1.1rem .6rem; border-bottom: 1px solid var(--line); }
[popover] header h3 { margin: 0; }
[popover] .body { padding: .7rem 1.1rem 1.1rem; }
[popover] .body > :first-child { margin-top: 0; }
button.close, button.link { font: inherit; cursor: pointer; background: none; border: 1px solid var(--line); color: inherit; border-radius: 6px; padding: .05rem .6rem; }
button.link { color: var(--accent); }
button.link.plain { border: 0; padding: 0; text-decoration: underline; text-underline-offset: 2px; }
.outcome { display: inline-block; border-radius: 4px; padding: 0 .45rem; font-size: .86rem; }
pre.trace { margin: .5rem 0 1rem; padding: .7rem .9rem; background: var(--paper); border: 1px solid var(--line); border-radius: 7px; overflow-x: auto; font: 12.5px/1.55 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; tab-size: 2; }
code { font: .92em ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }

.hazards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(27rem, 100%), 1fr)); gap: .8rem; padding: 0; list-style: none; margin: .8rem 0 0; }
.hazards > li { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem .9rem; }
.hazards p { margin: .1rem 0 .55rem; font-size: .88rem; }
.has { display: flex; flex-wrap: wrap; gap: .35rem; list-style: none; padding: 0; margin: 0; }
.has button { width: auto; font-size: .84rem; padding: .1rem .55rem; }

figure { margin: 1.2rem 0 2rem; }
figure > figcaption { max-width: 62rem; margin-bottom: .5rem; }
.plot { overflow-x: auto; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .8rem; }
.plot svg { display: block; max-width: 100%; height: auto; background: transparent; }
.plot svg[viewBox] { min-width: 34rem; }
.plot figure { margin: 0; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(38rem, 100%), 1fr)); gap: 0 1.6rem; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--accent); }
details table { margin: .5rem 0; }
details td, details th { text-align: right; padding: .1rem .7rem; }
details th[scope=row] { position: static; background: none; border-right: 0; }
footer { margin-top: 3.5rem; padding-bottom: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; }
@media (max-width: 46rem) {
  body { font-size: 14.5px; }
  th[scope=row] { min-width: 8.2rem; max-width: 9rem; padding: .2rem .5rem; font-size: .93em; }
  th[scope=row] small { display: none; }
  h2 { margin-top: 2.2rem; }
}
@media print { [popover] { display: none; } .scroll { overflow: visible; } }
`;
