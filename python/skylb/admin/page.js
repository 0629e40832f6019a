// A balancer's own page: one frame (skylb.admin.frame) in, one picture out.
let shape = "";
let parts = {};

// ------------------------------------------------------------------ figures

const VITALS = [
  ["requests/s", (v) => number(v.per_s, 1)],
  ["TTFT P50", (v) => seconds(v.ttft_p50_s), "time to first token, median of the latest requests"],
  ["TTFT P90", (v) => seconds(v.ttft_p90_s), "nine of ten requests had their first token sooner"],
  ["between tokens, P50", (v) => seconds(v.gap_p50_s), "time from one token of a stream to the next"],
  ["under way", (v) => number(v.in_flight)],
  ["in the hold", (v) => number(v.held), "requests that wait here because no replica has room", (v) => v.held ? "warn" : ""],
  ["errors, last minute", (v) => number(v.failed), "requests that ended with an error, whoever's fault it was",
    (v) => v.failed ? "bad" : ""],
];
function makeVitals() {
  return VITALS.map(([label, text, hint, level]) => {
    const value = make("b", {}, "–"), box = make("div", hint ? { title: hint } : {}, value, make("span", {}, label));
    return { box, value, text, level };
  });
}
function makeCharts() {
  const ms = { unit: seconds, least: 0.02 };
  return [
    makeChart({ title: "Time to first token", ...ms, lines: [
      { name: "P50", color: "var(--busy)", of: (v) => v.ttft_p50_s }, { name: "P90", color: "var(--wait)", of: (v) => v.ttft_p90_s }] }),
    makeChart({ title: "Requests per second", unit: (v) => number(v, 1), least: 1, lines: [
      { name: "ended", color: "var(--busy)", of: (v) => v.per_s }] }),
    makeChart({ title: "Waiting in the hold", unit: (v) => number(v), least: 4, lines: [
      { name: "held", color: "var(--wait)", of: (v) => v.held }] }),
    makeChart({ title: "Errors of the last minute", unit: (v) => number(v), least: 4, lines: [
      { name: "failed", color: "var(--bad)", of: (v) => v.failed }] }),
  ];
}

// ----------------------------------------------------------------- replicas

const level = (word) => ["up", "alive"].includes(word) ? "good"
  : ["down", "ejected", "wedged", "dead", "unreachable"].includes(word) ? "bad" : "warn";
const since = (s) => s == null ? "" : s < 90 ? `for ${s} s` : s < 5400 ? `for ${Math.round(s / 60)} min` : `for ${Math.round(s / 3600)} h`;

function head(labels) {
  return make("div", { class: "line head", role: "row" },
    ...labels.map(([label, kind, hint]) => make("span", { class: kind || "", role: "columnheader", ...(hint ? { title: hint } : {}) }, label)));
}
const REPLICA_HEAD = [["replica"], ["state"], ["running", "n", "sequences that it runs, as its metrics say"],
  ["waiting", "n", "sequences that wait at it"], ["allowance", "n", "requests that may wait at it: SkyLB holds the others"],
  ["KV cache used"], ["hit rate", "n", "share of recent prompt tokens that it had in its cache, by its own count"], ["models"], [""]];
const PEER_HEAD = [["peer"], ["state"], ["round trip", "n"], ["its hold", "n"], ["room", "n", "requests that may be forwarded to it now"],
  ["forwards", "n", "under way"], ["forwards/s", "n"]];

function makeState() {
  const dot = make("i", { class: "dot" }), word = make("span"), why = make("span", { class: "dim" });
  return { box: make("div", { class: "state", role: "cell" }, make("b", {}, dot, word), why), dot, word, why };
}
function drawState(part, it) {
  set(part.dot, "class", `dot ${level(it.word)}`);
  put(part.word, it.word);
  put(part.why, [it.reason, it.word === "up" ? "" : since(it.for_s)].filter(Boolean).join(", "));
}
function cells(labels) {
  return labels.map((label) => make("span", { class: "n", role: "cell", "data-label": label }, "–"));
}
function makeReplica(replica) {
  const state = makeState(), figures = cells(["running", "waiting", "allowance"]), [hit] = cells(["hit rate"]);
  const kv = make("span"), used = bar("var(--busy)");
  const models = make("span", { class: "models", role: "cell", "data-label": "models" });
  const button = make("button", { type: "button" });
  button.addEventListener("click", async () => {
    button.disabled = true;
    await ask("POST", `replicas/${encodeURIComponent(replica.name)}/${button.dataset.do}`);
    button.disabled = false;
  });
  const box = make("div", { class: "line", role: "row", "data-replica": replica.label },
    make("span", { class: "name", role: "cell" }, replica.label), state.box, ...figures,
    make("div", { class: "kv", role: "cell", "data-label": "KV cache used" }, kv, used.box), hit, models, make("div", { class: "buttons", role: "cell" }, button));
  return { box, state, figures, kv, used, hit, models, button };
}
function drawReplica(part, replica) {
  drawState(part.state, replica);
  [replica.running, replica.waiting, replica.allowance].forEach((value, i) => put(part.figures[i], number(value)));
  put(part.kv, percent(replica.kv_used));
  fill(part.used.pieces[0], replica.kv_used || 0);
  part.used.pieces[0].style.background = replica.kv_used > 0.9 ? "var(--wait)" : "var(--busy)";
  put(part.hit, percent(replica.cached));
  put(part.models, replica.models.join(", ") + (replica.models_more ? ` and ${replica.models_more} more` : ""));
  const verb = replica.draining ? "undrain" : "drain";
  set(part.button, "data-do", verb);
  set(part.button, "class", replica.draining ? "mend" : "danger");
  set(part.button, "aria-label", `${verb} ${replica.label}`);
  set(part.button, "title", replica.draining ? "new requests may go there again" : "no new requests; those under way end");
  put(part.button, replica.draining ? "Undrain" : "Drain");
}
function makePeer(peer) {
  const state = makeState(), figures = cells(["round trip", "its hold", "room", "forwards", "forwards/s"]);
  const name = peer.region && peer.region !== peer.name ? `${peer.name} (${peer.region})` : peer.name;
  return { box: make("div", { class: "line", role: "row", "data-peer": peer.name }, make("span", { class: "name", role: "cell" }, name), state.box, ...figures), state, figures };
}
function drawPeer(part, peer) {
  drawState(part.state, peer);
  [seconds(peer.rtt_s), number(peer.held), number(peer.room), number(peer.in_flight), number(peer.per_s, 1)]
    .forEach((text, i) => put(part.figures[i], text));
}

// -------------------------------------------------------------------- lists

function rows(list, items, empty, row) {
  const text = JSON.stringify(items);
  if (list.dataset.text === text) return;
  list.dataset.text = text;
  list.replaceChildren(...(items.length ? items.map(row) : [make("li", { class: "empty" }, empty)]));
}
function age(frame, event) {
  const s = Math.max(0, frame.vitals.t_s - event.at_s);
  return s < 90 ? `${Math.round(s)} s ago` : s < 5400 ? `${Math.round(s / 60)} min ago` : `${Math.round(s / 3600)} h ago`;
}
function drawLists(frame) {
  put($("recent"), frame.recent_s ? `last ${Math.round(frame.recent_s)} s` : "");
  rows($("errors"), frame.errors, "No request has failed.", (error) => make("li", { "data-code": error.code },
    make("b", { class: error.side === "client" ? "" : "bad" }, String(error.count)),
    make("div", {}, make("b", {}, error.code), error.side ? ` on the side of: ${error.side}` : "", make("span", { class: "dim" }, error.about))));
  const events = frame.events.map((event) => ({ ...event, age: age(frame, event) }));
  rows($("events"), events, "Nothing has changed since the start.", (event) => make("li", {},
    make("time", {}, event.age), make("span", { class: event.level }, event.text)));
  rows($("troubles"), frame.troubles, "", (trouble) => make("li", {}, make("i", { class: `dot ${trouble.level}` }), make("span", {}, trouble.text)));
  if (!frame.troubles.length) $("troubles").replaceChildren();
}

// -------------------------------------------------------------------- frame

function build(frame) {
  parts = { vitals: makeVitals(), charts: makeCharts(), replicas: frame.replicas.map(makeReplica), peers: frame.peers.map(makePeer) };
  $("vitals").replaceChildren(...parts.vitals.map((part) => part.box));
  $("charts").replaceChildren(...parts.charts.map((part) => part.box));
  $("replicas").replaceChildren(...(frame.replicas.length ? [head(REPLICA_HEAD)] : []), ...parts.replicas.map((part) => part.box));
  $("none").hidden = frame.replicas.length > 0;
  $("peers").replaceChildren(head(PEER_HEAD), ...parts.peers.map((part) => part.box));
  $("peerbox").hidden = !frame.peers.length;
  $("all").hidden = false;
}
function draw(frame) {
  const now = JSON.stringify([frame.replicas.map((r) => r.name), frame.peers.map((p) => p.name)]);
  if (now !== shape) {
    shape = now;
    build(frame);
  }
  const name = frame.balancer ? `balancer ${frame.balancer}${frame.region && frame.region !== frame.balancer ? ` in ${frame.region}` : ""}, ` : "";
  put($("title"), `${name}policy ${frame.policy}, version ${frame.version}, up ${clock(frame.vitals.t_s)}`);
  document.title = `${frame.level === "good" ? "" : "! "}SkyLB ${frame.balancer}`.trim();
  set($("headline"), "class", `headline ${frame.level}`);
  set($("dot"), "class", `dot ${frame.level}`);
  put($("said"), frame.headline);
  for (const part of parts.vitals) {
    put(part.value, part.text(frame.vitals));
    set(part.box, "class", part.level ? part.level(frame.vitals) : "");
  }
  if (past.length) parts.charts.forEach((chart) => drawChart(chart));
  frame.replicas.forEach((replica, i) => drawReplica(parts.replicas[i], replica));
  frame.peers.forEach((peer, i) => drawPeer(parts.peers[i], peer));
  drawLists(frame);
  document.body.dataset.frame = frame.vitals.t_s;
}
start({ draw, piece: (frame) => frame.vitals });
