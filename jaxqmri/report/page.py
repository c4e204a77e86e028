"""The frame of a report: HTML around its sections, and how they look, on paper and on a dark screen too."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""

FOOTER = "<footer>Made by jaxqmri. Research software, not a medical device.</footer>"

STYLE = """
:root { --paper: #ffffff; --card: #f4f6f8; --ink: #1c2126; --faint: #5b646d; --line: #dde2e7; --warn: #fff5e0;
  --warn-line: #e69f00; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171a; --card: #1e2328; --ink: #e8ebee; --faint: #a2abb4; --line: #333a41; --warn: #33290f;
    --warn-line: #e69f00; --link: #79b8ff; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1.2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.4rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem; }
.card { background: var(--card); border-radius: 8px; padding: .8rem 1rem; }
.label { color: var(--faint); font-size: .85rem; }
.value { font-size: 1.55rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.value small { font-size: .95rem; font-weight: 400; color: var(--faint); }
.spread, .note, figcaption { color: var(--faint); font-size: .85rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .5rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; margin: 0 0 1.2rem; padding: 0;
  font-size: .9rem; }
nav a { display: inline-block; padding: .2rem 0; }
a:focus-visible, .scroll:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; border-radius: 3px; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: .75rem; }
.panels.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
figure { margin: 0 0 .75rem; background: #ffffff; border-radius: 8px; padding: .5rem; text-align: center;
  border: 1px solid var(--line); }
.panels figure { margin: 0; }
img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
.cuts { background: #000000; width: 100%; max-width: 520px; }
.cuts img { image-rendering: pixelated; width: 100%; max-width: 480px; }
.cuts figcaption { color: #c9d1d9; padding: .4rem .2rem 0; }
.bar { display: flex; flex-wrap: wrap; justify-content: space-between; max-width: 480px; font-size: .85rem;
  font-variant-numeric: tabular-nums; }
.bar i { flex: 0 0 100%; height: 12px; border-radius: 3px; border: 1px solid var(--line);
  -webkit-print-color-adjust: exact; print-color-adjust: exact; }
.bar + .note { margin: .2rem 0 .6rem; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 1.25rem;
  align-items: start; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
tbody th { font-weight: 400; overflow-wrap: break-word; }
.facts th { color: var(--faint); white-space: nowrap; width: 1%; }
.facts td { overflow-wrap: anywhere; }
.meaning { display: block; color: var(--faint); font-size: .9em; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.number { white-space: normal; }
.warnings { background: var(--warn); border-left: 4px solid var(--warn-line); border-radius: 4px; margin: 0;
  padding: .7rem 1rem .7rem 2rem; overflow-wrap: anywhere; }
pre { background: var(--card); border-radius: 8px; padding: .8rem 1rem; font-size: .88rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
footer { margin-top: 3rem; color: var(--faint); font-size: .85rem; }
a { color: var(--link); }
@media (max-width: 480px) { main { padding: 1.2rem .8rem 3rem; } h1 { font-size: 1.4rem; }
  table { font-size: .8rem; } th, td { padding-right: .4rem; } tr > :last-child { padding-right: 0; }
  nav ul { gap: .3rem 1rem; } }
@media print {
  :root { --paper: #ffffff; --card: #f4f6f8; --ink: #000000; --faint: #444444; --line: #bbbbbb; --warn: #fff5e0;
    --link: #000000; color-scheme: light; }
  @page { margin: 14mm; }
  body { font-size: 11px; } main { max-width: none; padding: 0; }
  nav { display: none; }
  h2, h3 { break-after: avoid; } figure, tr, .card, .warnings, .note, pre { break-inside: avoid; }
  .panels { grid-template-columns: 1fr 1fr 1fr; } .panels.wide { grid-template-columns: 1fr 1fr; }
  .scroll { overflow: visible; }
  .card, .warnings, pre { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""
