"""How a page looks: light and dark as the reader's system is, on wide screens, on a phone, on paper."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --bg: #fbfaf8; --raised: #ffffff; --ink: #1c1b19; --muted: #5c5852; --line: #d8d3ca;
  --accent: #8f4410; --tint: #fbeedd; --bad: #a3231b;
  --c0: #b4480f; --c1: #1b65a6; --c2: #23773f; --c3: #7d3fa6;
  --c4: #a0306a; --c5: #66620a; --c6: #0d727c; --c7: #5a5a5a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #161513; --raised: #1e1d1a; --ink: #ece9e3; --muted: #aba59b; --line: #3b3833;
    --accent: #f2a765; --tint: #33271b; --bad: #ff8f86;
    --c0: #f29b5b; --c1: #6cb6f5; --c2: #6fcf8d; --c3: #c89bea;
    --c4: #ef84b3; --c5: #d6d05a; --c6: #5fd0da; --c7: #bdbdbd;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem clamp(0.9rem, 3vw, 2.5rem) 3rem; max-width: 100rem;
  background: var(--bg); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: anywhere;
}
h1 { font-size: clamp(1.6rem, 4vw, 2.3rem); line-height: 1.15; margin: 0 0 0.3rem; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 0.7rem; padding-bottom: 0.25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1rem 0 0.35rem; }
p { margin: 0.35rem 0; max-width: 80ch; }
small, .hint, .kicker { color: var(--muted); }
.hint, .kicker { font-size: 0.9rem; }
.verdict { font-size: 1.1rem; margin: 0.9rem 0; padding: 0.6rem 0.9rem; border-left: 4px solid var(--accent);
  background: var(--tint); }
a { color: var(--accent); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
nav { margin: 1rem 0 0; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; margin: 0; padding: 0; list-style: none; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(13rem, 100%), 1fr)); gap: 0.8rem 1.6rem;
  margin: 1rem 0; }
dl div { border-top: 1px solid var(--line); padding-top: 0.4rem; }
dt { color: var(--muted); font-size: 0.9rem; }
dd { margin: 0; font-size: 1.15rem; font-weight: 600; }
dd small { display: block; font-weight: 400; font-size: 0.85rem; }
.scroll { overflow-x: auto; max-width: 100%; margin: 0.6rem 0; }
table { border-collapse: collapse; font-size: 0.92rem; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.7rem 0.3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: break-word; }
thead th { color: var(--muted); font-weight: 600; vertical-align: bottom; white-space: nowrap; }
tbody th { font-weight: 600; }
.figures td, .figures th { font-variant-numeric: tabular-nums; padding-right: 1.2rem; }
.figures tr.advised > * { background: var(--tint); }
.epochs td { white-space: nowrap; }
.epochs tbody th { min-width: 5.5rem; }
.note { display: block; width: 28ch; white-space: pre-wrap; }
.badge { display: inline-block; padding: 0 0.4em; border: 1px solid var(--accent); border-radius: 0.3em;
  color: var(--accent); font-size: 0.78rem; font-weight: 600; white-space: nowrap; }
.grid { border-collapse: separate; border-spacing: 0; }
.grid th, .grid td { padding: 0.25rem; border-bottom: 0; }
.grid thead th { scroll-margin: 1rem 0 0 17rem; padding: 0.2rem 0.4rem 0.3rem; }
.marks { width: clamp(6rem, 12vw, 12rem); white-space: normal; font-size: 0.9rem; line-height: 1.5; }
.grid .advised { background: var(--tint); }
.grid thead .advised { border-top: 3px solid var(--accent); }
.grid tbody th { position: sticky; left: 0; z-index: 1; width: clamp(7rem, 20vw, 15rem); min-width: 7rem;
  background: var(--bg); font-weight: 400; font-size: 0.88rem; padding-right: 0.7rem; }
.grid tbody th span:not(.badge) { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 7;
  overflow: hidden; }
.grid tbody small { display: block; max-width: clamp(6rem, 12vw, 12rem); overflow-wrap: anywhere; }
.shot { display: block; padding: 0; border: 0; background: none; cursor: zoom-in; border-radius: 4px; }
.shot img { display: block; width: clamp(6rem, 12vw, 12rem); height: auto; border-radius: 4px; }
.tiny { image-rendering: pixelated; }
.none { display: grid; place-items: center; width: clamp(6rem, 12vw, 12rem); min-height: 5rem; padding: 0.4rem;
  border: 1px dashed var(--line); border-radius: 4px; color: var(--muted); font-size: 0.8rem; text-align: center; }
.bad { color: var(--bad); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(34rem, 100%), 1fr)); gap: 1rem 2rem; }
.chart { margin: 0; }
.chart > svg { display: block; width: 100%; height: auto; background: var(--raised); border: 1px solid var(--line);
  border-radius: 6px; }
svg text { fill: var(--muted); font: 12px system-ui, sans-serif; }
.grid-line { stroke: var(--line); stroke-width: 1; }
.range rect { fill: var(--tint); stroke: var(--accent); stroke-dasharray: 2 4; stroke-width: 1; }
.place line { stroke: var(--accent); stroke-width: 2; stroke-dasharray: 6 3; }
.saved path { fill: var(--muted); }
.course { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.error { fill: none; stroke: currentColor; stroke-width: 1; opacity: 0.75; }
.line circle { fill: currentColor; stroke: none; }
.line-0 { color: var(--c0); } .line-1 { color: var(--c1); } .line-2 { color: var(--c2); }
.line-3 { color: var(--c3); }
.line-4 { color: var(--c4); } .line-5 { color: var(--c5); } .line-6 { color: var(--c6); }
.line-7 { color: var(--c7); }
.line-1 .course { stroke-dasharray: 8 4; } .line-2 .course { stroke-dasharray: 2 3; }
.line-3 .course { stroke-dasharray: 10 3 2 3; } .line-4 .course { stroke-dasharray: 5 2; }
.line-5 .course { stroke-dasharray: 1 4; } .line-6 .course { stroke-dasharray: 12 4; }
.line-7 .course { stroke-dasharray: 4 4; }
.key { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; margin: 0.4rem 0 0; padding: 0; list-style: none;
  font-size: 0.88rem; }
.key svg { width: 26px; height: 12px; vertical-align: middle; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 0.5rem 2.5rem; }
.wide { grid-template-columns: repeat(auto-fit, minmax(min(32rem, 100%), 1fr)); }
.side > * { min-width: 0; }
pre { margin: 0.5rem 0; padding: 0.7rem 0.9rem; overflow-x: auto; background: var(--raised);
  border: 1px solid var(--line); border-radius: 6px; font-size: 0.85rem; white-space: pre-wrap; }
code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
summary { cursor: pointer; padding: 0.3rem 0; }
.failed { border-left: 4px solid var(--bad); padding: 0.1rem 0.9rem; }
.runs td .line { display: inline-block; }
footer { margin-top: 3rem; padding-top: 0.6rem; border-top: 1px solid var(--line); color: var(--muted);
  font-size: 0.88rem; }
dialog { border: 0; padding: 0; margin: auto; max-width: 96vw; max-height: 96vh; background: var(--raised);
  color: var(--ink); border-radius: 8px; }
dialog[open] { display: flex; flex-direction: column; }
dialog::backdrop { background: rgb(0 0 0 / 0.75); }
#zoom { width: min(94vw, max(20rem, calc(96vh - 9rem))); }
#zoom-picture { display: block; width: 100%; height: min(94vw, calc(96vh - 9rem)); min-height: 8rem;
  object-fit: contain; }
#zoom-words { margin: 0.5rem 0.9rem 0; max-height: 4.5rem; overflow-y: auto; max-width: none; }
.zoom-keys { display: flex; flex-wrap: wrap; gap: 0.4rem; padding: 0.5rem 0.9rem 0.8rem; }
.zoom-keys button { font: inherit; font-size: 0.9rem; padding: 0.25rem 0.8rem; color: var(--ink); cursor: pointer;
  background: var(--bg); border: 1px solid var(--muted); border-radius: 5px; }
@media (max-width: 40rem) {
  .grid tbody th { font-size: 0.78rem; width: 7rem; }
  .shot img, .none { width: 7.5rem; }
}
@media print {
  :root { --bg: #fff; --raised: #fff; --ink: #000; --muted: #444; --line: #bbb; --accent: #7a3a0c; --tint: #f6ead9; }
  body { padding: 0; max-width: none; font-size: 10pt; }
  nav, dialog, .screen-only { display: none !important; }
  section, figure, tr { break-inside: avoid; }
  #pictures, #epochs, #settings { break-inside: auto; }
  .scroll { overflow: visible; }
  .charts { grid-template-columns: 1fr 1fr; }
  .grid thead { display: none; }
  .grid, .grid tbody, .grid tr, .grid tbody th { display: block; position: static; width: auto; }
  .grid td { display: inline-block; }
  .grid td::before { content: attr(data-label); display: block; font-size: 8pt; }
  .shot img, .none { width: 3cm; min-height: 0; }
  .figures th, .figures td { padding-right: 0.5rem; }
  .epochs { font-size: 7pt; }
  .epochs td, .epochs thead th { white-space: normal; }
  .epochs tbody th { min-width: 0; }
  .note { width: auto; }
}
"""
