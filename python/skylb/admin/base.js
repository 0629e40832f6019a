"use strict";
// What the live pages share: elements, charts, and the stream of frames. Elements are made once and then only
// changed, so that a button under the pointer stays where it is.
const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = ["svg", "path", "circle", "text", "g", "line", "rect", "defs", "linearGradient", "stop", "title"];
const $ = (id) => document.getElementById(id);
const PAST_MAX = 600;
const past = [];

function make(tag, attributes = {}, ...children) {
  const node = SVG_TAGS.includes(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const set = (node, name, value) => { if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value); };
const seconds = (s) => s == null ? "–" : s < 0.9995 ? `${s < 0.00995 ? (s * 1e3).toFixed(1) : Math.round(s * 1e3)} ms`
  : `${s.toFixed(s < 10 ? 2 : 1)} s`;
const number = (n, digits = 0) => n == null ? "–" : n.toFixed(digits);
const percent = (share) => share == null ? "–" : `${Math.round(share * 100)}%`;
const clock = (s) => s < 3600 ? `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`
  : s < 172800 ? `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min` : `${Math.floor(s / 86400)} days`;

function bar(...colors) {
  const pieces = colors.map((c) => make("i", { style: `background:${c};width:0` }));
  return { box: make("div", { class: "bar" }, ...pieces), pieces };
}
const fill = (piece, share) => { piece.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`; };

// ------------------------------------------------------------------- charts

function makeChart({ title, unit, least, lines, wide = 0 }) {
  // `lines`: name, color and value of each; `least`: what the top of the chart is worth at least;
  // `wide`: seconds shown, all there are if 0.
  const values = lines.map(() => make("b"));
  const legend = make("div", { class: "legend" }, ...lines.map((line, i) =>
    make("span", {}, make("i", { style: `background:${line.color}` }), `${line.name} `, values[i])));
  const svg = make("svg", { viewBox: "0 0 400 110", preserveAspectRatio: "none", "aria-hidden": "true" });
  const common = { fill: "none", "vector-effect": "non-scaling-stroke" };
  const paths = lines.map((line) => make("path", { ...common, stroke: line.color, "stroke-width": 2, "stroke-linejoin": "round" }));
  svg.append(...[4, 56, 108].map((y) => make("line", { ...common, x1: 0, x2: 400, y1: y, y2: y, stroke: "var(--edge)" })), ...paths);
  const top = make("span"), span = make("span"), plot = make("div", { class: "plot" }, svg);
  const box = make("article", { class: "card chart" }, make("h2", {}, title), legend,
    make("div", { class: "label" }, top, span), plot);
  return { unit, least, lines, wide, box, plot, paths, values, top, span, marks: {} };
}
function drawChart(chart, marks = []) {
  // `marks`: seconds and text of vertical lines.
  const newest = past[past.length - 1];
  const begin = chart.wide ? Math.max(past[0].t_s, newest.t_s - chart.wide) : past[0].t_s;
  const shown = past.filter((piece) => piece.t_s >= begin), wide = Math.max(10, newest.t_s - begin);
  const series = chart.lines.map((line) => shown.map(line.of));
  chart.box.hidden = series.flat().every((value) => value == null);
  const most = series.flat().reduce((max, value) => value == null ? max : Math.max(max, value * 1.05), chart.least);
  put(chart.top, chart.unit(most));
  put(chart.span, wide < 120 ? `last ${Math.round(wide)} s` : `last ${Math.round(wide / 60)} min`);
  series.forEach((values, i) => {
    let d = "", pen = "M";
    values.forEach((value, j) => {
      if (value == null) { pen = "M"; return; }
      d += `${pen}${((shown[j].t_s - begin) / wide * 400).toFixed(1)} ${(108 - value / most * 104).toFixed(1)}`;
      pen = "L";
    });
    set(chart.paths[i], "d", d);
    put(chart.values[i], chart.unit(values[values.length - 1]));
  });
  drawMarks(chart, marks.filter(([at]) => at >= begin).map(([at, text]) => [(at - begin) / wide, text]));
}
function drawMarks(chart, marks) {
  const nodes = marks.map(([share, text], i) => {
    const node = chart.marks[i] || (chart.marks[i] = make("div", { class: "mark" }, make("span")));
    node.style.left = `${Math.min(1, share) * 100}%`;
    node.classList.toggle("left", share > 0.55);
    node.firstChild.style.top = `${1 + i % 3 * 17}px`;
    put(node.firstChild, text);
    return node;
  });
  const lacks = nodes.some((node) => node.parentNode !== chart.plot) || chart.plot.children.length !== nodes.length + 1;
  if (lacks) chart.plot.replaceChildren(chart.plot.firstChild, ...nodes);
}

// ------------------------------------------------------------------- stream

// Server-Sent Events, read by hand: an EventSource cannot carry the admin token.
let token = "";
let page = null; // `draw` a frame; `piece`: what is kept of one for the charts
const headers = (more = {}) => ({ "X-SkyLB-Page": "1", ...more, ...(token ? { Authorization: `Bearer ${token}` } : {}) });

function keep(piece) {
  if (past.length && piece.t_s < past[past.length - 1].t_s) past.length = 0; // the server has started anew
  if (past.length && piece.t_s - past[past.length - 1].t_s < 0.9) return;
  past.push(piece);
  if (past.length > PAST_MAX) past.shift();
}
function take(event) {
  const data = JSON.parse(event.slice(event.indexOf("data: ") + 6));
  if (Array.isArray(data)) {
    past.length = 0;
    data.forEach(keep);
    return;
  }
  keep(page.piece(data));
  page.draw(data);
  $("gone").hidden = true;
}
async function read(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = "";;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("it has ended the stream");
    const events = (text + value).split("\n\n");
    text = events.pop();
    events.forEach(take);
  }
}
async function follow() {
  try {
    const answer = await fetch("events", { cache: "no-store", headers: headers() });
    if (answer.status === 401) {
      put($("wrong"), token ? "That is not the token." : "");
      $("token").hidden = false;
      $("token").querySelector("input").focus();
      return;
    }
    if (!answer.ok) throw new Error(`it says ${answer.status}: ${await answer.text()}`);
    await read(answer);
  } catch (error) {
    put($("gone"), `No news from the server (${error.message}). What is shown below is old.`);
    $("gone").hidden = false;
    setTimeout(follow, 1000);
  }
}
async function ask(method, path, body) {
  // A verb; says what was refused. Whether it was done.
  try {
    const answer = await fetch(path, { method, headers: headers({ "Content-Type": "application/json" }), body });
    if (answer.ok) { $("refused").hidden = true; return true; }
    const said = (await answer.json()).error;
    put($("refused"), `Not done: ${said.message || said}`);
  } catch (error) {
    put($("refused"), `Not done: ${error.message}`);
  }
  $("refused").hidden = false;
  return false;
}
function start(functions) {
  page = functions;
  $("token")?.addEventListener("submit", (event) => {
    event.preventDefault();
    token = $("token").querySelector("input").value.trim();
    $("token").hidden = true;
    follow();
  });
  follow();
}
