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
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); gap: .75rem; }
figure { margin: 0 0 .75rem; background: #ffffff; border-radius: 8px; padding: .5rem; text-align: center;
  border: 1px solid var(--line); }
.panels figure { margin: 0; }
img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 1.25rem;
  align-items: start; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
.facts th { font-weight: 400; color: var(--faint); white-space: nowrap; width: 1%; }
.facts td { overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.warnings { background: var(--warn); border-left: 4px solid var(--warn-line); border-radius: 4px; margin: 0;
  padding: .7rem 1rem .7rem 2rem; overflow-wrap: anywhere; }
pre { background: var(--card); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto; font-size: .88rem; }
a { color: var(--link); }
@media (max-width: 480px) { main { padding: 1.2rem .8rem 3rem; } h1 { font-size: 1.4rem; }
  table { font-size: .82rem; } th, td { padding-right: .6rem; } }
@media print { section { break-inside: avoid; } body { font-size: 12px; } }
"""
