// The demo's page: one frame (skylb.tools.demo.frame) in, one picture out.
let shape = "";
let parts = {};
const color = (index) => `var(--r${index % 6})`;

async function act(button) {
  button.disabled = true;
  await ask("POST", "actions", JSON.stringify({ do: button.dataset.do, what: button.dataset.what, name: button.dataset.name }));
  button.disabled = false;
}
const MENDING = ["start", "heal", "return"];
function action(what, name, verbs) {
  // One button per verb; `choose` shows those that make sense now.
  const box = make("div", { class: "buttons" });
  for (const [verb, text, hint] of verbs) {
    const button = make("button", { type: "button", class: MENDING.includes(verb) ? "mend" : "danger", title: hint,
      "aria-label": `${text}: ${what} ${name}`, "data-do": verb, "data-what": what, "data-name": name }, text);
    button.addEventListener("click", () => act(button));
    box.append(button);
  }
  return box;
}
function choose(box, verbs) {
  for (const button of box.children) button.hidden = !verbs.includes(button.dataset.do);
}

// ------------------------------------------------------------------ regions

const REPLICA_VERBS = [["kill", "Kill", "SIGKILL, as a machine that dies"], ["start", "Start", "starts it again, its cache empty"]];
const BALANCER_VERBS = [["kill", "Kill balancer", "SIGKILL to the balancer; its replicas live on"],
  ["start", "Start balancer", "starts it again where it was"]];
const REGION_VERBS = [["evacuate", "Evacuate", "new and held work leaves the region; streams that may go on elsewhere leave after 5 s, others end"],
  ["return", "Return", "the region takes work again"]];
const LINK_VERBS = [["cut", "Cut", "connections are reset, new ones refused"],
  ["blackhole", "Blackhole", "everything sent is swallowed, nobody is told"], ["heal", "Heal", "the link is as it was"]];

function figure(label) {
  const value = make("b", {}, "–");
  return { box: make("div", {}, value, make("span", {}, label)), value };
}
function makeReplica(replica, actions) {
  const name = make("b", {}, replica.name), health = make("div", { class: "dim" });
  const work = bar("var(--busy)", "var(--wait)"), text = make("div", { class: "dim" });
  const arc = make("path", { fill: "none", stroke: "var(--good)", "stroke-width": 5, "stroke-linecap": "round" });
  const share = make("text", { x: 21, y: 25, "text-anchor": "middle" }, "–");
  const ring = make("svg", { class: "ring", viewBox: "0 0 42 42", role: "img" },
    make("title", {}, "share of recent prompt tokens that it had in its cache"),
    make("circle", { cx: 21, cy: 21, r: 17, fill: "none", stroke: "var(--faint)", "stroke-width": 5 }), arc, share);
  const buttons = action("replica", replica.name, actions ? REPLICA_VERBS : []);
  const box = make("div", { class: "replica", "data-replica": replica.name },
    make("div", {}, name, health), make("div", {}, work.box, text), ring, buttons);
  return { box, health, work, text, arc, share, buttons };
}
function drawReplica(part, replica, region) {
  const dead = replica.health === "killed";
  part.box.classList.toggle("dead", dead);
  const by = replica.served_by && replica.served_by !== region ? ` by ${replica.served_by}` : "";
  put(part.health, by ? `served${by}` : replica.draining ? replica.countdown || "draining" : replica.health);
  part.health.style.color = dead || replica.health === "down" ? "var(--bad)"
    : replica.health !== "up" || replica.draining || by ? "var(--warn)" : "";
  const most = Math.max(replica.capacity, replica.in_flight, 1) + 3;
  const waits = Math.min(replica.pending, replica.in_flight);
  fill(part.work.pieces[0], (replica.in_flight - waits) / most);
  fill(part.work.pieces[1], waits / most);
  put(part.text, `${replica.in_flight} in flight` + (replica.pending ? `, ${replica.pending} waiting` : ""));
  put(part.share, replica.cached == null ? "–" : `${Math.round(replica.cached * 100)}%`);
  const angle = Math.min(0.9999, replica.cached || 0) * 2 * Math.PI;
  const [x, y] = [21 + 17 * Math.sin(angle), 21 - 17 * Math.cos(angle)];
  set(part.arc, "d", replica.cached ? `M21 4A17 17 0 ${angle > Math.PI ? 1 : 0} 1 ${x.toFixed(2)} ${y.toFixed(2)}` : "");
  choose(part.buttons, [dead ? "start" : "kill"]);
}
function makeRegion(region, index, actions) {
  const dot = make("i", { class: "dot" }), note = make("small");
  const title = make("h3", { class: "grow", style: `color:${color(index)}` }, dot, region.name, note);
  const balancer = action("balancer", region.name, actions ? BALANCER_VERBS : []);
  const evacuate = action("region", region.name, actions ? REGION_VERBS : []);
  const figures = ["TTFT P50", "TTFT P90", "answers/s", "failed"].map(figure);
  figures[3].box.title = "answers that were cut after their first byte, and connections to a balancer that is dead";
  const why = make("div", { class: "why" });
  const figureBox = make("div", { class: "figures" }, ...figures.map((f) => f.box));
  const users = bar(color(index)), held = bar("var(--wait)");
  const usersLabel = make("span"), heldLabel = make("span"), sentTo = make("span");
  const userBox = make("div", {}, make("div", { class: "label" }, usersLabel, sentTo), users.box);
  const replicas = region.replicas.map((replica) => makeReplica(replica, actions));
  const box = make("article", { class: "card", "data-region": region.name },
    make("div", { class: "row" }, title, make("div", { class: "buttons" }, balancer, evacuate)),
    figureBox, why, userBox, make("div", { class: "label" }, make("span", {}, "hold"), heldLabel), held.box,
    make("div", { class: "replicas" }, ...replicas.map((part) => part.box)));
  return { box, dot, note, balancer, evacuate, figures, figureBox, why, users, userBox, held, usersLabel, heldLabel, sentTo, replicas };
}
function drawRegion(part, region) {
  const dead = region.balancer === "killed", up = region.balancer === "up";
  part.box.classList.toggle("dead", dead);
  part.box.classList.toggle("leaving", region.evacuating);
  part.dot.className = "dot" + (dead ? " bad" : !up || region.evacuating ? " warn" : "");
  put(part.note, dead ? "balancer killed" : !up ? `balancer ${region.balancer}` : region.evacuating ? "evacuated" : "");
  part.note.style.color = dead ? "var(--bad)" : "var(--warn)";
  choose(part.balancer, [dead ? "start" : "kill"]);
  choose(part.evacuate, dead ? [] : [region.evacuating ? "return" : "evacuate"]);
  const texts = [seconds(region.ttft_p50_s), seconds(region.ttft_p90_s), number(region.per_s, 1), number(region.failed)];
  part.figureBox.hidden = region.per_s == null;
  part.figures.forEach((f, i) => put(f.value, texts[i]));
  part.figures[3].value.style.color = region.failed ? "var(--bad)" : "";
  put(part.why, region.why ? `failed: ${region.why}` : "");
  part.userBox.hidden = region.users == null;
  put(part.usersLabel, `${region.users} users awake`);
  const away = region.sent_to && region.sent_to !== region.name;
  put(part.sentTo, away ? `sent to ${region.sent_to}` : "");
  part.sentTo.style.color = "var(--warn)";
  fill(part.users.pieces[0], region.users == null ? 0 : region.users / region.users_max);
  put(part.heldLabel, dead ? "–" : `${region.held} waiting`);
  fill(part.held.pieces[0], dead ? 0 : region.held / 30);
  region.replicas.forEach((replica, i) => drawReplica(part.replicas[i], replica, region.name));
}

// ----------------------------------------------------------------- switches

function makeSwitch(it) {
  const buttons = it.choices.map(([value, text]) => {
    const button = make("button", { type: "button", role: "radio", "data-do": "set", "data-what": it.what, "data-name": value }, text);
    button.addEventListener("click", () => act(button));
    return button;
  });
  return { buttons, box: make("div", { class: "switch", role: "radiogroup", "aria-label": it.label }, make("span", {}, it.label), make("div", { class: "choice" }, ...buttons)) };
}
function makeNumber() {
  const label = make("span"), value = make("b"), note = make("small");
  return { box: make("div", {}, label, value, note), label, value, note };
}
function drawNumber(part, label, it, wait) {
  part.box.hidden = !it;
  if (!it) return;
  put(part.label, `${label}: ${it.setting}`);
  put(part.value, it.requests ? seconds(it.p90_s) : "–");
  put(part.note, it.requests ? `TTFT P90 of ${it.requests} requests, ${Math.round(it.seconds)} s` : wait);
}
function makeSwitches(frame) {
  const switches = frame.switches.map(makeSwitch), before = makeNumber(), since = makeNumber();
  before.box.id = "before";
  since.box.id = "since";
  const given = make("table", { id: "given" });
  $("switches").replaceChildren(...switches.map((it) => it.box), make("div", { class: "numbers" }, before.box, since.box), given);
  const chart = makeChart({ title: "TTFT of all users, last 5 s", unit: seconds, least: 0.2, wide: 120, lines: [
    { name: "P50", color: "var(--busy)", of: (then) => then.ttft_p50_s }, { name: "P90", color: "var(--wait)", of: (then) => then.ttft_p90_s }] });
  $("ttft").replaceChildren(chart.box);
  return { switches, before, since, given, chart };
}
function drawSwitches(part, frame) {
  frame.switches.forEach((it, i) => part.switches[i].buttons.forEach((button) => {
    set(button, "aria-checked", button.dataset.name === it.value);
  }));
  drawNumber(part.before, "before", frame.before, "");
  drawNumber(part.since, frame.marks.length ? "since" : "now", frame.since, frame.marks.length ? "measured from 2 s after the switch" : "caches fill: measured from 10 s on");
  part.since.box.classList.toggle("better", !!frame.before && !!frame.since.requests && frame.since.p90_s < frame.before.p90_s);
  part.since.box.classList.toggle("worse", !!frame.before && !!frame.since.requests && frame.since.p90_s > frame.before.p90_s);
  const rows = frame.given.length > 1 ? frame.given.map((it) => [it.setting, seconds(it.p50_s), seconds(it.p90_s), `${Math.round(it.seconds)} s`]) : [];
  const text = JSON.stringify(rows);
  if (part.given.dataset.text !== text) {
    part.given.dataset.text = text;
    const row = (cells, tag) => make("tr", {}, ...cells.map((cell) => make(tag, {}, cell)));
    part.given.replaceChildren(...(rows.length ? [row(["in all, under", "P50", "P90", "in"], "th"), ...rows.map((cells) => row(cells, "td"))] : []));
  }
  if (past.length) drawChart(part.chart, frame.marks);
}

// ---------------------------------------------------------------------- sea

// Where land is: a row of dots per line, 100 dots of 3.6 degrees from 170 W eastward, 3.25 degrees from 74 N
// southward; four dots a digit. From the GLOBE elevation model (NOAA, public domain).
const LAND = `
0007dfc0ff80000237ffe3000
3fffedb8ff000f80ffffffff8
7fffff3c78601ffffffffffff
7ffffc18700077ffffffffff8
3cfff830000073ffffffffc80
003ffe3c000217fffffffc300
001fffff000e7ffffffffe000
000ffffd0003fffffffffc000
0007fffc0001fffffffffc000
0007fff00007be3ffffffa000
0007ffe0000617ffffffe2000
0007ffc00004c1ffffffa4000
0003ff800007e07fffff80000
0001ff80000fffffffff80000
0000f080001ffffbffff80000
00007000001fffbe3fff00000
00003200001fffff1e7c00000
00001e00001fffde1c7800000
00000300003ffff80c3c00000
0000013c001ffff8080800000
0000003e000ffff8040040000
0000003f80007ff8003100000
0000007fc0003fe0001300000
0000007fe0003fe0001b8c000
0000007ff8001fc0000007000
0000007ffc001fc0000002800
0000003ff8001fe0000008000
0000003ff0001fe800003b000
0000000ff0001f9800007f000
0000000ff0001f980001ff800`.trim().split("\n");
const WIDE = 1200, DOT_X = 12, DOT_Y = 9.4, HIGH = DOT_Y * LAND.length, PLAIN_HIGH = 190;
const eastward = (longitude) => (((longitude + 170) % 360 + 360) % 360) / 360 * WIDE;

function place(region, index, count) {
  // Without coordinates side by side, the middle ones lower, so that no link crosses another.
  if (region.longitude == null) return { x: WIDE * (index + 0.5) / count, y: count > 2 && index > 0 && index < count - 1 ? 140 : 54 };
  return { x: eastward(region.longitude), y: (74 - region.latitude) / 3.25 * DOT_Y };
}
function makeLand() {
  const dots = LAND.map((row, y) => [...row].map((digit, at) => [0, 1, 2, 3].map((bit) =>
    parseInt(digit, 16) & (8 >> bit) ? `M${(at * 4 + bit + 0.5) * DOT_X} ${((y + 0.5) * DOT_Y).toFixed(1)}h0` : "").join("")).join("")).join("");
  return make("path", { class: "land", d: dots, stroke: "var(--land)", "stroke-width": 6.2, "stroke-linecap": "round" });
}
function makeNight() {
  const stops = [0, 1, 2, 3, 4, 5, 6, 7, 8].map((i) => make("stop", { offset: i / 8, "stop-color": "var(--night)",
    "stop-opacity": ((1 - Math.cos(i / 4 * Math.PI)) / 2).toFixed(3) }));
  const gradient = make("linearGradient", { id: "night", gradientUnits: "userSpaceOnUse", x1: 0, x2: WIDE, y1: 0, y2: 0,
    spreadMethod: "repeat" }, ...stops);
  const sun = make("g", {}, make("title", {}, "noon is here"), make("circle", { r: 17, cy: 24, fill: "var(--sun)", opacity: 0.25 }),
    make("circle", { r: 9, cy: 24, fill: "var(--sun)" }));
  const dark = make("rect", { width: WIDE, height: HIGH, fill: "url(#night)", style: "opacity:var(--night-depth)" });
  return { gradient, sun, nodes: [make("defs", {}, gradient), dark, sun] };
}
function bend(a, b, drawn) {
  // The middle of a link: long ones swing south, around the shorter ones.
  if (!drawn) return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  const far = Math.abs(a.x - b.x) / WIDE;
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 + (far > 0.5 ? 250 : far > 0.32 ? 70 : -62) };
}
function curve(a, b, m, side) {
  const long = Math.hypot(b.x - a.x, b.y - a.y) || 1;
  const [x, y] = [-(b.y - a.y) / long * side * 5, (b.x - a.x) / long * side * 5];
  return `M${a.x + x} ${a.y + y}Q${m.x + x} ${m.y + y} ${b.x + x} ${b.y + y}`;
}
function makeLink(sea, link, frame, at) {
  const [a, b] = link.ends.map((end) => at[end]), m = bend(a, b, sea.night);
  const line = make("path", { d: curve(a, b, m, 0), "stroke-width": 2, fill: "none" });
  sea.svg.append(line);
  for (const [from, to] of [link.ends, [link.ends[1], link.ends[0]]]) {
    const index = frame.regions.findIndex((region) => region.name === from);
    const path = make("path", { class: "flow", d: curve(at[from], at[to], m, 1), stroke: color(index), "stroke-width": 0 });
    sea.flows[`${from}>${to}`] = path;
    sea.svg.append(path);
  }
  const text = make("b"), flow = make("div", { class: "dim" });
  const buttons = action("link", link.name, frame.actions ? LINK_VERBS : []);
  const box = make("div", { class: "link", "data-link": link.name }, make("div", { class: "grow" }, text, flow), buttons);
  sea.links[link.name] = { line, text, flow, box, buttons };
  return box;
}
function makeSea(frame) {
  const drawn = frame.regions.every((region) => region.longitude != null);
  const high = drawn ? HIGH : PLAIN_HIGH;
  const svg = make("svg", { viewBox: `0 0 ${WIDE} ${high}` });
  const sea = { svg, high, night: drawn ? makeNight() : null, links: {}, flows: {}, nodes: {} };
  const at = {};
  frame.regions.forEach((region, i) => { at[region.name] = place(region, i, frame.regions.length); });
  if (drawn) svg.append(makeLand(), ...sea.night.nodes);
  $("sea").replaceChildren(svg);
  $("links").replaceChildren(...frame.links.map((link) => makeLink(sea, link, frame, at)));
  frame.regions.forEach((region, i) => {
    const { x, y } = at[region.name];
    const node = make("circle", { class: "place", stroke: color(i), cx: x, cy: y });
    svg.append(node, make("text", { class: "place", x, y, "text-anchor": "middle", "dominant-baseline": "central" }, region.name));
    sea.nodes[region.name] = node;
  });
  return sea;
}
function linkText(link) {
  const ends = link.ends.join(" – ");
  if (link.fault !== "none") return `${ends}: ${link.fault.replace("_", " ")}`;
  return link.rtt_s == null ? `${ends}: no round trip yet` : `${ends}: ${Math.round(link.rtt_s * 1e3)} ms`;
}
function drawSea(sea, frame) {
  const flows = Object.fromEntries(frame.flows.map((flow) => [`${flow.origin}>${flow.target}`, flow]));
  for (const [key, path] of Object.entries(sea.flows)) {
    const rate = flows[key] ? flows[key].per_s : 0;
    set(path, "stroke-width", rate > 0 ? Math.min(11, 4 + 2 * Math.sqrt(rate)).toFixed(1) : 0);
  }
  for (const link of frame.links) {
    const part = sea.links[link.name], bad = link.fault !== "none";
    part.box.classList.toggle("bad", bad);
    set(part.line, "stroke", bad ? "var(--bad)" : "var(--link)");
    set(part.line, "stroke-dasharray", bad ? "3 9" : "none");
    put(part.text, linkText(link));
    const ways = [link.ends, [link.ends[1], link.ends[0]]].map(([from, to]) => flows[`${from}>${to}`]).filter((flow) => flow);
    const busy = ways.filter((flow) => flow.per_s > 0).map((flow) => `${flow.origin} → ${flow.target} ${flow.per_s.toFixed(1)}/s`);
    const sick = ways.filter((flow) => flow.state && flow.state !== "alive").map((flow) => `${flow.origin}: ${flow.target} ${flow.state}`);
    put(part.flow, [...busy, ...sick].join(", ") || "no forwards");
    choose(part.buttons, bad ? ["heal"] : ["cut", "blackhole"]);
  }
  for (const region of frame.regions) {
    set(sea.nodes[region.name], "fill", `var(--${region.balancer === "killed" ? "bad-ground" : region.evacuating ? "warn-ground" : "card"})`);
  }
  if (sea.night && frame.sun_longitude != null) {
    const x = eastward(frame.sun_longitude).toFixed(1);
    set(sea.night.gradient, "gradientTransform", `translate(${x})`);
    set(sea.night.sun, "transform", `translate(${x})`);
  }
}

// ------------------------------------------------------------------- charts

const CHARTS = [
  { title: "TTFT P50 of each region's users, last 10 s", unit: seconds, of: (frame, region) => region.ttft_p50_s, least: 0.2 },
  { title: "Users awake", unit: (v) => number(v), of: (frame, region) => region.users, least: 10 },
  { title: "Waiting in each region's hold", unit: (v) => number(v), of: (frame, region) => region.held, least: 4 },
  { title: "Forwarded elsewhere per second", unit: (v) => number(v, 1),
    of: (frame, region) => frame.flows.filter((f) => f.origin === region.name).reduce((sum, f) => sum + f.per_s, 0), least: 2 },
];
function makeCharts(frame) {
  return CHARTS.map(({ title, unit, least, of }) => makeChart({ title, unit, least, lines: frame.regions.map((region, i) => ({
    name: region.name, color: color(i), of: (then) => then.regions[i] ? of(then, then.regions[i]) : null })) }));
}

// -------------------------------------------------------------------- frame

function drawTotals(frame) {
  const sum = (name) => frame.regions.reduce((total, region) => total + (region[name] || 0), 0);
  const forwards = frame.flows.reduce((total, flow) => total + flow.per_s, 0);
  const minutes = `${Math.floor(frame.t_s / 60)}:${String(Math.floor(frame.t_s % 60)).padStart(2, "0")}`;
  const told = frame.regions.some((region) => region.answered != null);
  const texts = [[minutes, "running"], [number(sum("held")), "held"]];
  if (frame.links.length) texts.push([number(forwards, 1), "forwards/s"]);
  if (told) texts.push([number(sum("per_s"), 1), "answers/s"], [number(sum("answered")), "answered"], [number(sum("failed")), "failed"]);
  if ($("totals").children.length !== texts.length) {
    $("totals").replaceChildren(...texts.map(([, label]) => make("div", {}, make("b"), make("span", {}, label))));
  }
  texts.forEach(([text], i) => put($("totals").children[i].firstChild, text));
}
function drawNews(list, news) {
  const text = JSON.stringify(news);
  if (list.dataset.text === text) return;
  list.dataset.text = text;
  if (!news.length) {
    list.replaceChildren(make("li", { class: "dim" }, "Nothing yet: press a button."));
    return;
  }
  list.replaceChildren(...news.map(([t, said]) => make("li", {}, make("time", {}, `${t.toFixed(1)} s`), make("span", {}, said))));
}
function build(frame) {
  $("top").hidden = false;
  $("sea").hidden = $("links").hidden = frame.regions.length < 2;
  $("about").hidden = !frame.about.length;
  $("about").replaceChildren(...frame.about.map((text) => make("p", {}, text)));
  $("lanes").style.gridTemplateColumns = `repeat(${Math.min(3, frame.regions.length)}, minmax(0, 1fr))`;
  parts = { top: makeSwitches(frame), sea: makeSea(frame), regions: frame.regions.map((region, i) => makeRegion(region, i, frame.actions)), charts: makeCharts(frame) };
  $("charts").replaceChildren(...parts.charts.map((chart) => chart.box));
  $("lanes").replaceChildren(...parts.regions.map((part) => part.box));
}
function draw(frame) {
  const now = JSON.stringify([frame.actions, frame.regions.map((r) => [r.name, r.replicas.map((p) => p.name)]), frame.links.map((l) => l.name)]);
  if (now !== shape) {
    shape = now;
    build(frame);
  }
  put($("title"), frame.title);
  drawTotals(frame);
  drawSea(parts.sea, frame);
  frame.regions.forEach((region, i) => drawRegion(parts.regions[i], region));
  if (past.length) parts.charts.forEach((chart) => drawChart(chart));
  drawSwitches(parts.top, frame);
  drawNews($("news"), frame.news);
  document.body.dataset.frame = frame.t_s;
}
start({ draw, piece: (frame) => frame });
