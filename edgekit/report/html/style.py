"""The style sheet of the report: one for light and dark, for paper, and for a phone."""

from __future__ import annotations

__all__ = ["CSS"]

CSS = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b2230; --soft: #5a6577; --line: #dde2ea;
  --track: #edf0f4; --accent: #1f6feb; --bad: #b42318; --warning: #9a6700; --note: #2457a6; --good: #1a7f37;
  --conv: #2f6fde; --depthwise: #d9730d; --product: #1a8f5f; --move: #8a94a6; --point: #8b5cd6; --other: #c2417c; }
@media (prefers-color-scheme: dark) { :root { --page: #11151c; --card: #1a202a; --ink: #e7ebf2; --soft: #9aa6b8;
  --line: #2d3645; --track: #252d3a; --accent: #6ea8ff; --bad: #ff8a80; --warning: #f0b849; --note: #8bb8ff;
  --good: #6bd490; --conv: #6ea3ff; --depthwise: #ffa24d; --product: #4fcf97; --move: #9aa6b8; --point: #b79bff;
  --other: #f584b4; } }
* { box-sizing: border-box; }
body { margin: 0; overflow-wrap: anywhere; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 24px 20px 48px; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.12rem; margin: 0 0 4px; }
p { margin: 6px 0; } .soft { color: var(--soft); } code { font: 0.92em ui-monospace, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-top: 18px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin-top: 16px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 1.3rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 0.85rem; }
.finding { border-left: 4px solid var(--note); padding: 2px 0 2px 12px; margin: 14px 0; overflow-wrap: anywhere; }
.finding b .level { font-size: 0.72rem; letter-spacing: 0.05em; text-transform: uppercase; margin-right: 8px;
  color: var(--note); }
.finding.bad { border-color: var(--bad); } .finding.bad .level { color: var(--bad); }
.finding.warning { border-color: var(--warning); } .finding.warning .level { color: var(--warning); }
.finding.good { border-color: var(--good); } .finding.good .level { color: var(--good); }
.finding p { margin: 2px 0; } .remedy::before { content: "\\2192\\00a0"; }
.bar { display: grid; grid-template-columns: minmax(120px, 34%) 1fr 92px; gap: 10px; align-items: center;
  font-size: 0.87rem; padding: 2px 0; }
.bar .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bar .name small { color: var(--soft); } .bar .value { text-align: right; font-variant-numeric: tabular-nums; }
.track { position: relative; height: 14px; background: var(--track); border-radius: 4px; overflow: hidden; }
.track i { position: absolute; top: 0; bottom: 0; border-radius: 4px; min-width: 2px; }
.range { overflow: visible; background: none; border-bottom: 1px solid var(--line); border-radius: 0; }
.range i { top: 4px; bottom: 3px; background: var(--accent); opacity: 0.35; }
.range em { position: absolute; top: 2px; width: 10px; height: 10px; margin-left: -5px; border-radius: 50%;
  background: var(--accent); }
.here { font-weight: 700; } .here .range i { opacity: 0.6; } .outside .range em { background: none;
  border: 2px solid var(--accent); }
.conv { background: var(--conv); } .depthwise { background: var(--depthwise); } .product { background: var(--product); }
.move { background: var(--move); } .point { background: var(--point); } .other { background: var(--other); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 0.84rem; color: var(--soft); margin: 8px 0; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
.stack { display: flex; height: 22px; border-radius: 6px; overflow: hidden; margin: 8px 0; background: var(--track); }
.stack i { display: block; min-width: 1px; }
.wide { overflow-x: auto; } svg { display: block; width: 100%; height: auto; min-width: 640px; }
svg text { fill: var(--soft); font-size: 11px; } svg .label { fill: var(--ink);
  paint-order: stroke; stroke: var(--card); stroke-width: 3px; }
svg .axis { stroke: var(--line); stroke-width: 1; } svg .roof { stroke: var(--ink); stroke-width: 1.5; fill: none;
  stroke-dasharray: 5 4; }
svg .area { fill: var(--accent); opacity: 0.22; } svg .edge { stroke: var(--accent); stroke-width: 1.5; fill: none; }
svg .peak { stroke: var(--bad); stroke-width: 1; stroke-dasharray: 4 4; }
svg .dot { opacity: 0.75; stroke: var(--card); } svg .conv { fill: var(--conv); } svg .depthwise {
  fill: var(--depthwise); } svg .product { fill: var(--product); } svg .other { fill: var(--other); }
table { border-collapse: collapse; width: 100%; font-size: 0.86rem; }
th, td { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td.long { overflow-wrap: anywhere; min-width: 140px; }
summary { cursor: pointer; color: var(--accent); margin: 8px 0; } footer { color: var(--soft); font-size: 0.84rem;
  margin-top: 20px; overflow-wrap: anywhere; }
@media (max-width: 560px) { main { padding: 16px 12px 32px; } section { padding: 14px 12px; }
  .bar { grid-template-columns: 40% 1fr 70px; gap: 6px; font-size: 0.8rem; }
  .tiles { grid-template-columns: 1fr 1fr; } }
@media print { body { background: none; } section, .tile { break-inside: avoid; } }
"""
