// The dashboard: polls /v1/network and /v1/status, listens to /v1/finality, follows one transaction. No dependencies.
"use strict";

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const pollMs = 1000;
const followMs = 250;
const maxRows = 12;

function el(tag, text, attributes = {}) {
  const e = document.createElement(tag);
  if (text !== undefined && text !== null) e.textContent = text;
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  return e;
}

async function get(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error ? `${value.error.message} ${value.error.remedy ?? ""}` : answer.statusText);
  return value;
}

const ms = (v) => (v > 0 ? number.format(Math.round(v)) : "–");
const rate = (v) => (v >= 100 ? number.format(Math.round(v)) : number.format(Math.round(v * 10) / 10));

function say(state, mark, text) {
  const h = $("health");
  if (h.dataset.text === text) return;
  h.dataset.text = text;
  h.dataset.state = state;
  h.replaceChildren(el("span", mark, { "aria-hidden": "true" }), document.createTextNode(" " + text));
}

// standing says in words and with a mark how a validator does; colour only repeats it.
function standing(v) {
  if (v.self) return ["good", "● this node"];
  if (!v.connected) return ["bad", "✕ not connected"];
  if (v.last_vote_ms < 0) return ["warn", "▲ no vote seen"];
  if (v.lag > 4 || v.last_vote_ms > 10000) return ["warn", "▲ behind"];
  return ["good", "● voting"];
}

function shardCard(s) {
  const card = el("article", null, { class: "card" });
  card.append(el("h3", `Shard ${s.shard}`));
  const stale = s.stale_ms > 5000 ? ` · as of ${Math.round(s.stale_ms / 1000)} s ago` : "";
  card.append(el("p", `height ${number.format(s.height)} · ${rate(s.tps)} tx/s · final in ${ms(s.finality_ms.p50)} ms, 99 of 100 in ${ms(s.finality_ms.p99)} ms${stale}`, { class: "line" }));
  const wrap = el("div", null, { class: "scroll", tabindex: "0", role: "region", "aria-label": `Validators of shard ${s.shard}` });
  const table = el("table");
  const head = el("tr");
  for (const t of ["validator", "power", "voted at", "behind", "state"]) head.append(el("th", t, { scope: "col" }));
  const thead = el("thead");
  thead.append(head);
  const body = el("tbody");
  for (const v of s.validators ?? []) {
    const [state, word] = standing(v);
    const row = el("tr");
    row.append(el("th", v.name || `#${v.index}`, { scope: "row" }), el("td", number.format(v.power)), el("td", v.last_height ? number.format(v.last_height) : "–"), el("td", number.format(v.lag)));
    row.append(el("td", word, { "data-state": state }));
    body.append(row);
  }
  table.append(thead, body);
  wrap.append(table);
  card.append(wrap);
  return card;
}

function showNetwork(n) {
  const shards = n.shards ?? [];
  const focused = document.activeElement && $("shards").contains(document.activeElement);
  if (!focused) $("shards").replaceChildren(...shards.map(shardCard));
  $("tps").textContent = rate(shards.reduce((sum, s) => sum + s.tps, 0));
  const worst = (key) => Math.max(0, ...shards.map((s) => s.finality_ms[key]));
  $("p50").textContent = ms(worst("p50"));
  $("p99").textContent = ms(worst("p99"));
  const all = shards.flatMap((s) => s.validators ?? []);
  $("voting").textContent = `${all.filter((v) => standing(v)[0] === "good").length} of ${all.length}`;
}

function showHistogram(buckets) {
  const most = Math.max(1, ...buckets.map((b) => b.count));
  const label = (b, i) => {
    const to = b.up_to_ms >= 1000 ? `${b.up_to_ms / 1000} s` : `${b.up_to_ms} ms`;
    return i === buckets.length - 1 ? "longer" : to;
  };
  $("histogram").tBodies[0].replaceChildren(...buckets.map((b, i) => {
    const row = el("tr");
    const cell = el("td");
    cell.append(el("meter", null, { min: 0, max: most, value: b.count, "aria-label": `${b.count} transfers` }));
    row.append(el("th", label(b, i), { scope: "row" }), el("td", number.format(b.count), { class: "num" }), cell);
    return row;
  }));
}

function showNode(s) {
  $("chain").textContent = `${s.chain} · genesis ${s.genesis.slice(0, 8)} · ${s.shards} shards`;
  const pairs = [
    ["role", s.validator_index >= 0 ? `validator ${s.validator_index} of shard ${s.shard}` : `follower of shard ${s.shard}`],
    ["version", `${s.version} (${s.commit})`],
    ["final height", number.format(s.final_height)],
    ["view", number.format(s.view)],
    ["state root", `${s.state_root} after block ${number.format(s.state_height)}`],
    ["accounts", number.format(s.accounts)],
    ["waiting in the pool", `${number.format(s.pool.txs)} of ${number.format(s.pool.limit)}`],
    ["peers connected", number.format(s.peers_connected)],
    ["memory", `${number.format(Math.round(s.memory.rss_mib))} MiB`],
    ["data on disk", `${number.format(Math.round(s.disk_mib))} MiB`],
    ["running for", `${number.format(Math.round(s.uptime_s))} s`],
  ];
  $("node").replaceChildren(...pairs.flatMap(([k, v]) => [el("dt", k), el("dd", v)]));
  showHistogram(s.finality_histogram ?? []);
}

async function poll() {
  try {
    const [network, status] = await Promise.all([get("v1/network"), get("v1/status")]);
    showNetwork(network);
    showNode(status);
    if (status.syncing) say("warn", "▲", "catching up");
    else if (status.stalled) say("bad", "✕", "no new final block");
    else say("good", "●", "finalising");
  } catch (err) {
    say("bad", "✕", "this node does not answer");
  }
  setTimeout(poll, pollMs);
}

// Final blocks, live.
const blocks = [];
let newestID = "";

async function addBlock(event) {
  const e = JSON.parse(event.data);
  if (e.ids && e.ids.length > 0) newestID = e.ids[e.ids.length - 1];
  blocks.unshift({ height: e.height, view: "", txs: e.ids ? e.ids.length : 0, time: e.time_ms, hash: "" });
  blocks.length = Math.min(blocks.length, maxRows);
  showBlocks(e.height);
  try {
    const b = await get(`v1/blocks/${e.height}`);
    const row = blocks.find((x) => x.height === b.height);
    if (row) {
      row.view = b.view;
      row.hash = b.hash;
      showBlocks();
    }
  } catch {
    // the node may have dropped it already; the row stays without these columns
  }
}

function showBlocks(fresh) {
  const now = Date.now();
  $("blocks").tBodies[0].replaceChildren(...blocks.map((b) => {
    const row = el("tr", null, b.height === fresh ? { class: "fresh" } : {});
    row.append(el("th", number.format(b.height), { scope: "row" }), el("td", b.view === "" ? "" : number.format(b.view)), el("td", number.format(b.txs)),
      el("td", `${Math.max(0, (now - b.time) / 1000).toFixed(1)} s`), el("td", b.hash.slice(0, 16)));
    return row;
  }));
}

function listen() {
  const source = new EventSource("v1/finality?ids=1");
  source.addEventListener("final", addBlock);
  source.addEventListener("end", () => {
    source.close();
    setTimeout(listen, 2000);
  });
}

// Follow one transaction from submission to its proof.
let following = 0;

async function follow(id) {
  const mine = ++following;
  const steps = $("steps");
  const seen = new Set();
  const start = performance.now();
  const step = (key, text) => {
    if (seen.has(key) || mine !== following) return;
    seen.add(key);
    steps.append(el("li", `${text} (${Math.round(performance.now() - start)} ms after you asked)`));
  };
  steps.replaceChildren();
  $("txid").value = id;
  for (let tries = 0; mine === following && tries < 240; tries++) {
    let t;
    try {
      t = await get(`v1/transactions/${id}`);
    } catch (err) {
      step("error", `This node says: ${err.message}`);
      return;
    }
    if (t.state === "unknown") step("unknown", "Not known to this node yet; waiting. A node knows its own shard's transactions");
    if (t.state === "pooled") step("pooled", "Accepted: it waits for a block");
    if (t.state === "included") step("included", `In block ${number.format(t.height)}, which is being voted on`);
    if (["final", "credited", "returned"].includes(t.state)) {
      step("final", t.success ? `Final in block ${number.format(t.height)} of shard ${t.shard}: it cannot be undone` : `Final in block ${number.format(t.height)}, without effect`);
      await showProof(id, step);
      if (t.state === "credited") step("credited", `Credited in block ${number.format(t.credit.height)} of shard ${t.credit.shard}`);
      if (t.state === "returned") step("returned", "The receiver does not exist: the money came back");
      if (t.state !== "final" || !t.cross_shard) return;
    }
    await new Promise((done) => setTimeout(done, followMs));
  }
}

async function showProof(id, step) {
  try {
    const p = await get(`v1/transactions/${id}/proof`);
    step("proof", `Proven: ${p.statement ? "block " + p.statement.where.block.slice(0, 16) : "the proof is ready"}; “tutti wallet receipt ${id.slice(0, 8)}…” checks it offline`);
  } catch (err) {
    step("proof-error", `No proof from this node: ${err.message}`);
  }
}

$("follow").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = $("txid").value.trim().toLowerCase();
  if (/^[0-9a-f]{64}$/.test(id)) follow(id);
  else $("steps").replaceChildren(el("li", "A transaction id has 64 hexadecimal digits."));
});
$("newest").addEventListener("click", () => {
  if (newestID) follow(newestID);
  else $("steps").replaceChildren(el("li", "No transfer has been finalised here since the page was opened."));
});

poll();
listen();
